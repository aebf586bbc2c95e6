//! Who claims a name: of several objects of one kind and name, one counts.

use std::{path::Path, sync::Arc};

use crate::object::{Object, Parsed};

/// A file's place among all: that of the path it was found under, and its own name. One `Arc` stands for one file.
#[derive(Clone, Debug)]
pub(crate) struct FileId {
    pub(crate) path: usize,
    pub(crate) file: Arc<Path>,
}

impl FileId {
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.path == other.path && Arc::ptr_eq(&self.file, &other.file)
    }
}

/// All objects of one name.
#[derive(Default)]
pub(crate) struct Claims {
    /// In order of files, then as they stand in the file.
    all: Vec<(FileId, Parsed)>,
    /// The file that the object which counts was taken from last: it goes on to hold the name when another claims it too.
    holder: Option<FileId>,
    /// What was taken last.
    used: Option<Object>,
}

/// What became of a name: what was taken before, and what is now.
pub(crate) type Settled = (Option<Object>, Option<Object>);

impl Claims {
    pub(crate) fn add(&mut self, file: &FileId, parsed: &Parsed) {
        // Nearly every name has one claim, and there are tens of thousands of names.
        self.all.reserve_exact(1);
        self.all.push((file.clone(), parsed.clone()));
        if self.all.len() > 1 {
            self.all.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path).then_with(|| one.file.cmp(&other.file)));
        }
    }

    pub(crate) fn remove(&mut self, file: &FileId) {
        self.all.retain(|(own, _)| !own.is(file));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn are_many(&self) -> bool {
        self.all.len() > 1
    }

    /// The object that counts: the first one, unless the file that held the name before still has one.
    pub(crate) fn chosen(&self) -> Option<&Parsed> {
        self.choice().map(|(_, parsed)| parsed)
    }

    fn choice(&self) -> Option<&(FileId, Parsed)> {
        let held = |(file, _): &&(FileId, Parsed)| self.holder.as_ref().is_some_and(|holder| holder.is(file));
        self.all.iter().find(held).or_else(|| self.all.first())
    }

    /// The objects that do not count.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Parsed> {
        let chosen = self.chosen();
        let parsed = self.all.iter().map(|(_, parsed)| parsed);
        parsed.filter(move |parsed| !chosen.is_some_and(|chosen| std::ptr::eq(chosen, *parsed)))
    }

    /// Takes the object that counts; `None` where it is equal to the one before.
    pub(crate) fn settle(&mut self) -> Option<Settled> {
        let (holder, object) = match self.choice() {
            Some((file, parsed)) => (Some(file.clone()), Some(&parsed.object)),
            None => (None, None),
        };
        let settled = (self.used.as_ref() != object).then(|| (self.used.clone(), object.cloned()));
        self.holder = holder;
        if let Some((_, object)) = &settled {
            self.used.clone_from(object);
        }
        settled
    }

    /// What was taken last.
    pub(crate) fn used(&self) -> Option<&Object> {
        self.used.as_ref()
    }
}
