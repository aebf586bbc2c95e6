//! Settings that were read before: an Ingress that is the same object keeps them, and Ingresses that ask for the same share
//! them.
//!
//! Where one of 10,000 Ingresses changes, one is read. Most clusters have a few dozen different sets of annotations, so sharing
//! keeps the memory of settings small however many there are.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use roadstead_model::{Ingress, ObjectName, Problem};

use super::{ConfigMaps, Options, Profile, Settings, reader::is_setting};

/// What the compilation before knew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    options: Arc<Options>,
    /// Where some settings stand.
    config_maps: Arc<ConfigMaps>,
    entries: HashMap<ObjectName, Entry>,
    /// By the hash of what they were read from.
    shared: HashMap<u64, Arc<Settings>>,
    hashes: RandomState,
}

#[derive(Clone, Debug)]
struct Entry {
    ingress: Arc<Ingress>,
    profile: Profile,
    settings: Arc<Settings>,
    problems: Vec<Problem>,
}

impl Known {
    /// Nothing is known under these options.
    pub(crate) fn new(options: Arc<Options>) -> Self {
        Self { options, ..Self::default() }
    }

    /// Looks for the ConfigMaps that Ingresses name here.
    pub(crate) fn among(self, config_maps: Arc<ConfigMaps>) -> Self {
        Self { config_maps, ..self }
    }

    /// The ConfigMaps of a snapshot; the same object as before where they are equal.
    pub(crate) fn config_maps_of(before: Option<&Self>, config_maps: &ConfigMaps) -> Arc<ConfigMaps> {
        match before {
            Some(before) if *before.config_maps == *config_maps => Arc::clone(&before.config_maps),
            _ => Arc::new(config_maps.clone()),
        }
    }

    /// The settings of an Ingress, as `before` knows them or read anew; remembered either way.
    pub(crate) fn settings(
        &mut self,
        before: Option<&Self>,
        ingress: &Arc<Ingress>,
        profile: Profile,
        problems: &mut Vec<Problem>,
    ) -> Arc<Settings> {
        let name = &ingress.meta.name;
        let kept = before
            .filter(|before| Arc::ptr_eq(&before.options, &self.options))
            .filter(|before| Arc::ptr_eq(&before.config_maps, &self.config_maps))
            .and_then(|before| before.entries.get(name))
            .filter(|entry| Arc::ptr_eq(&entry.ingress, ingress) && entry.profile == profile);
        let entry = match kept {
            Some(entry) => entry.clone(),
            None => self.read(ingress, profile),
        };
        problems.extend_from_slice(&entry.problems);
        let settings = self.share(&entry);
        self.entries.insert(name.clone(), Entry { settings: Arc::clone(&settings), ..entry });
        settings
    }

    /// The options that all of this was read under; the same object as before where they are equal.
    pub(crate) fn options_of(before: Option<&Self>, options: Options) -> Arc<Options> {
        match before {
            Some(before) if *before.options == options => Arc::clone(&before.options),
            _ => Arc::new(options),
        }
    }

    fn read(&self, ingress: &Arc<Ingress>, profile: Profile) -> Entry {
        let mut problems = Vec::new();
        let settings = Settings::resolve(ingress, profile, &self.options, &self.config_maps, &mut problems);
        Entry { ingress: Arc::clone(ingress), profile, settings: Arc::new(settings), problems }
    }

    /// The first settings that are equal to these.
    fn share(&mut self, entry: &Entry) -> Arc<Settings> {
        let Ingress { meta, .. } = &*entry.ingress;
        let asked: Vec<_> = meta.annotations.iter().filter(|(key, _)| is_setting(key)).collect();
        let hash = self.hashes.hash_one((&meta.name.namespace, entry.profile == Profile::Nginx, asked));
        let shared = self.shared.entry(hash).or_insert_with(|| Arc::clone(&entry.settings));
        if Arc::ptr_eq(shared, &entry.settings) || **shared == *entry.settings {
            return Arc::clone(shared);
        }
        Arc::clone(&entry.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn settings_are_read_once_and_shared() {
        let annotated = |name: &str, value: &str| {
            let mut ingress = fixture::ingress(name);
            ingress.meta.annotations.insert("nginx.ingress.kubernetes.io/ssl-redirect".to_owned(), value.to_owned());
            Arc::new(ingress)
        };
        let (one, same) = (annotated("default/one", "false"), annotated("default/same", "false"));
        let (other, wrong) = (annotated("default/other", "true"), annotated("default/wrong", "no"));
        let mut problems = Vec::new();
        let mut first = Known::new(Arc::default());
        let mut ask = |known: &mut Known, before: Option<&Known>, ingress: &Arc<Ingress>| {
            problems.clear();
            (known.settings(before, ingress, Profile::Standard, &mut problems), problems.len())
        };
        let (settings, _) = ask(&mut first, None, &one);
        assert!(!settings.redirects.ssl);
        assert!(Arc::ptr_eq(&settings, &ask(&mut first, None, &same).0));
        assert!(ask(&mut first, None, &other).0.redirects.ssl);
        assert_eq!(ask(&mut first, None, &wrong).1, 1);

        let config_maps = Known::config_maps_of(Some(&first), &ConfigMaps::new());
        let mut second = Known::new(Known::options_of(Some(&first), Options::default())).among(config_maps);
        assert!(Arc::ptr_eq(&settings, &ask(&mut second, Some(&first), &one).0), "not read again");
        assert_eq!(ask(&mut second, Some(&first), &wrong).1, 1, "and what was wrong is told again");
        let edited = annotated("default/one", "true");
        assert!(ask(&mut second, Some(&first), &edited).0.redirects.ssl, "another object is read");
    }
}
