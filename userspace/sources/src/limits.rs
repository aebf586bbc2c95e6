//! What an object may ask for and the data plane does not honour yet, told as warnings. A line goes when its part comes.

use roadstead_model::{Protocol, Service};

use crate::findings::Findings;

/// Largest manifest that is read, in bytes.
pub(crate) const FILE_BYTES: u64 = 16 << 20;
/// Most documents a file may hold.
pub(crate) const DOCUMENTS: usize = 100_000;

/// Warns of every field of the Service that has no effect yet.
pub(crate) fn warn(service: &Service, findings: &mut Findings) {
    for (index, port) in service.ports.iter().enumerate() {
        if port.protocol == Protocol::Sctp {
            findings.warn(format_args!("spec.ports[{index}].protocol"), "SCTP is not balanced yet");
        }
    }
}
