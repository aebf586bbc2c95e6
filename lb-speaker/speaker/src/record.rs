//! What was assigned, as a file in the state directory: for this node's next start, also after `kill -9`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use roadstead_layer2::replica::{Assignments, Entry, MAX_COUNT};
use roadstead_model::ObjectName;
use serde::{Deserialize, Serialize};

/// One entry; the fields only ever grow.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    number: u64,
    epoch: u64,
    writer: String,
    ips: Vec<IpAddr>,
}

/// The file.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("speaker-assignments.json")
}

/// Writes a file whole or not at all.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Writes the map, so that it is there after a loss of power too.
pub(crate) fn write(path: &Path, map: &Assignments) -> io::Result<()> {
    let by_name: BTreeMap<String, Written> = map
        .iter()
        .map(|(name, entry)| {
            let Entry { number, epoch, writer, ips } = entry.clone();
            (name.to_string(), Written { number, epoch, writer, ips })
        })
        .collect();
    replace(path, &serde_json::to_vec(&by_name).map_err(io::Error::other)?)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Reads the map; nothing where there is no file.
pub(crate) fn read(path: &Path) -> io::Result<Option<Assignments>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let by_name: BTreeMap<String, Written> =
        serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut map = Assignments::default();
    for (name, Written { number, epoch, writer, ips }) in by_name {
        let (namespace, name) = name.split_once('/').ok_or(io::ErrorKind::InvalidData)?;
        if number.max(epoch) > MAX_COUNT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        map.put(ObjectName::new(namespace, name), Entry { number, epoch, writer, ips });
    }
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_back_and_half_of_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        assert_eq!(read(&path).unwrap(), None);
        let mut map = Assignments::default();
        for (name, ips) in [("a", vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]), ("b", vec![])] {
            let entry = Entry { number: 3, epoch: MAX_COUNT, writer: "node-a".to_owned(), ips };
            map.put(ObjectName::new("default", name), entry);
        }
        write(&path, &map).unwrap();
        assert_eq!(read(&path).unwrap(), Some(map));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&MAX_COUNT.to_string(), &u64::MAX.to_string())).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "nothing could follow");
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
