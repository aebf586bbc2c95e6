// Kubernetes for the test cluster in one program: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and the
// nodes' kube-proxy, chosen by the first argument, or by the name under which the program was started.
//
// It is Kubernetes itself, linked from its released modules: nothing of it is imitated here. The lab starts it once
// for each part, with the flags that the part has everywhere.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// Each part runs until it is told to end, and returns the exit code.
var parts = map[string]func() int{
	"etcd":                    runEtcd,
	"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() int { return cli.Run(controllers.NewControllerManagerCommand()) },
	"kube-proxy":              func() int { return cli.Run(proxy.NewProxyCommand()) },
	"kube-scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
}

func main() {
	run, named := parts[filepath.Base(os.Args[0])]
	if !named && len(os.Args) > 1 {
		// The part reads the command line as its own.
		run, named = parts[os.Args[1]]
		os.Args = os.Args[1:]
	}
	if !named {
		fmt.Fprintf(os.Stderr, "which part? There is: %s\n", strings.Join(names(), ", "))
		os.Exit(2)
	}
	os.Exit(run())
}

func names() []string {
	var all []string
	for name := range parts {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
