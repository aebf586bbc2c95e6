package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd serves one member without peers. The flags bear the names of etcd's own.
func runEtcd() int {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	data := flags.String("data-dir", "", "folder of the data")
	clients := flags.String("listen-client-urls", "http://127.0.0.1:2379", "where clients are served")
	_ = flags.String("advertise-client-urls", "", "passed over: clients are served where they are served")
	peers := flags.String("listen-peer-urls", "http://127.0.0.1:2380", "where a peer would be; nobody is")
	noSync := flags.Bool("unsafe-no-fsync", false, "leave the data to the kernel: it survives the process, not the machine")
	level := flags.String("log-level", "warn", "debug, info, warn, error")
	// An error ends the process.
	_ = flags.Parse(os.Args[1:])
	if err := serve(*data, *clients, *peers, *level, *noSync); err != nil {
		fmt.Fprintf(os.Stderr, "etcd: %v\n", err)
		return 1
	}
	return 0
}

func serve(data, clients, peers, level string, noSync bool) error {
	if data == "" {
		return fmt.Errorf("--data-dir is missing")
	}
	client, err := url.Parse(clients)
	if err != nil {
		return fmt.Errorf("--listen-client-urls: %w", err)
	}
	peer, err := url.Parse(peers)
	if err != nil {
		return fmt.Errorf("--listen-peer-urls: %w", err)
	}
	config := embed.NewConfig()
	config.Dir = data
	config.LogLevel = level
	config.UnsafeNoFsync = noSync
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer etcd.Close()
	select {
	case <-ended:
		return nil
	case err := <-etcd.Err():
		return err
	}
}
