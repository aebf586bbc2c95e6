//! Compiles the harness of `ebpf/programs` by the one recipe and puts it where `src/packets/object.rs` embeds it.

use roadstead_toolchain::Object;

fn main() {
    roadstead_toolchain::embed(Object::Harness, "harness.o");
}
