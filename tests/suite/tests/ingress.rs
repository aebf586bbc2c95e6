//! The proxy as its users meet it: the running `roadstead-ingress` on a directory of YAML, real sockets on either side.
//!
//! What a single part does stands beside that part, and what a snapshot does in `ingress/proxy/tests`. Here everything
//! comes as a file and goes over a socket. Needs no root, but an address of this host that is not loopback: no manifest may
//! name a loopback endpoint. The daemon is that of the profile that the tests are built with, or of `ROADSTEAD_BIN_DIR`.

#![forbid(unsafe_code)]

#[cfg(test)]
mod ingress {
    mod browser;
    mod client;
    mod client_auth;
    mod conformance;
    mod curl;
    mod daemon;
    mod fields;
    mod frames;
    mod grpc;
    mod hosts;
    mod http2;
    mod load;
    mod manifests;
    mod paths;
    mod pod;
    mod quirks;
    mod robust;
    mod slow;
    mod tls;
    mod vectors;
    mod websocket;
}
