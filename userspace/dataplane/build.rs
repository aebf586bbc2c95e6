//! Compiles `ebpf/programs` by the one recipe and puts the object where `src/object.rs` embeds it.

use roadstead_toolchain::Object;

fn main() {
    let is_next = std::env::var_os("CARGO_FEATURE_NEXT_ABI").is_some();
    roadstead_toolchain::embed(if is_next { Object::NextPrograms } else { Object::Programs }, "programs.o");
}
