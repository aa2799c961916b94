//! Plugins of a tenant: known by their digest, found by a name and a tag as well.

use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use wasmill_model::PluginDigest;

use super::host::{PullError, Pulled, Wrong};
use super::problem::Problem;
use super::record::{self, PluginRecord, TenantRecord};
use super::room::Taken;
use super::signatures;
use super::tenant::Tenant;

/// What a plugin is.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// What it calls itself.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Everything else, for people.
    pub about: Value,
}

/// A plugin of a tenant.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct PluginView {
    /// `sha256:` and 64 hexadecimal digits.
    pub(super) digest: String,
    /// What it calls itself.
    pub(super) name: Option<String>,
    /// Its version.
    pub(super) version: Option<String>,
    /// How large it is.
    pub(super) bytes: u64,
    /// Microseconds since the Unix epoch.
    pub(super) pushed: i64,
    /// Every `name:tag` that stands for it.
    pub(super) tags: Vec<String>,
    /// Who of the tenant's signers has signed it.
    pub(super) signed_by: Option<String>,
    /// What it is made of, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) about: Option<Value>,
}

/// The file of a plugin in a folder of plugins, by its digest.
#[must_use]
pub fn blob(dir: &Path, digest: &impl ToString) -> PathBuf {
    dir.join(format!("{}.wasm", digest.to_string().replace(':', "-")))
}

/// A `name:tag` is two names with a colon.
pub(super) fn tag(text: &str) -> Result<String, Problem> {
    let (name, tag) = text.split_once(':').unwrap_or((text, "latest"));
    let is_name = |text: &str, more: &[char]| {
        let all = text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-') || more.contains(&c));
        (1..=63).contains(&text.len()) && all && !text.starts_with('.')
    };
    if is_name(name, &[]) && is_name(tag, &['.', '_']) {
        return Ok(format!("{name}:{tag}"));
    }
    Err(Problem::bad(format!("{text:?} is no name of a plugin"))
        .hint("a name is [a-z0-9-]{1,63}, a tag behind a colon is [a-z0-9._-]{1,63}; a digest is sha256:HEX"))
}

fn view(record: &TenantRecord, digest: &str, plugin: &PluginRecord) -> PluginView {
    let tags = record.tags.iter().filter(|(_, known)| *known == digest).map(|(tag, _)| tag.clone()).collect();
    let signed_by = digest
        .parse()
        .ok()
        .and_then(|digest| signatures::signer(&digest, &plugin.signatures, &record.signers).map(str::to_owned));
    PluginView {
        digest: digest.to_owned(),
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        bytes: plugin.bytes,
        pushed: plugin.pushed,
        tags,
        signed_by,
        about: None,
    }
}

impl From<Wrong> for Problem {
    fn from(wrong: Wrong) -> Self {
        let Wrong { message, hints, diagnostics } = wrong;
        let problem = if diagnostics.is_empty() { Self::wrong(message) } else { Self::wrong_job(message, diagnostics) };
        problem.hints(hints)
    }
}

/// What every reference to a plugin of a registry begins with.
pub(super) const REGISTRY: &str = "oci://";

/// A reference to a plugin of a registry without its tag, which means nothing beside a digest.
fn without_tag(reference: &str) -> String {
    match reference.split_once('@') {
        Some((named, digest)) => {
            let end = named.rfind('/').and_then(|from| Some(from + named[from..].find(':')?)).unwrap_or(named.len());
            format!("{}@{digest}", &named[..end])
        }
        None => reference.to_owned(),
    }
}

/// The digest that a name stands for now. `None` of a standard plugin, which has none.
pub(super) fn resolve(record: &TenantRecord, named: &str) -> Result<Option<PluginDigest>, Problem> {
    if named.starts_with("std:") {
        return Ok(None);
    }
    let missing =
        || Problem::missing(format!("there is no plugin {named:?}")).hint("`wasmill plugin ls` lists plugins; push it");
    let digest: PluginDigest = match named.parse() {
        Ok(digest) => digest,
        Err(_) if named.starts_with(REGISTRY) => {
            let known = record.tags.get(&without_tag(named)).and_then(|digest| digest.parse().ok());
            known.ok_or_else(|| {
                Problem::missing(format!("{named} was not pulled"))
                    .hint("pull it: wasmill plugin pull REFERENCE; a reference of a job has the digest of its manifest")
            })?
        }
        Err(_) => {
            let digest = record.tags.get(&tag(named)?).ok_or_else(missing)?;
            digest.parse().map_err(|_| missing())?
        }
    };
    if record.plugins.contains_key(&digest.to_string()) { Ok(Some(digest)) } else { Err(missing()) }
}

/// Refuses a plugin that nobody has signed, where the tenant has signers.
pub(super) fn verify(record: &TenantRecord, digest: &PluginDigest) -> Result<(), Problem> {
    if record.signers.is_empty() {
        return Ok(());
    }
    let signatures = record.plugins.get(&digest.to_string()).map(|plugin| plugin.signatures.as_slice());
    match signatures::signer(digest, signatures.unwrap_or_default(), &record.signers) {
        Some(_) => Ok(()),
        None => Err(Problem::not_granted(format!("plugin {digest} has no valid signature of a signer of the tenant"))
            .hint("sign the digest with ed25519, and add the signature: wasmill plugin sign")),
    }
}

impl Tenant {
    pub(super) fn plugins(&self) -> Vec<PluginView> {
        let record = self.record();
        record.plugins.iter().map(|(digest, plugin)| view(&record, digest, plugin)).collect()
    }

    /// A plugin by its digest or a name and tag.
    pub(super) fn plugin(&self, named: &str) -> Result<(PluginDigest, PluginView), Problem> {
        let record = self.record();
        let digest = resolve(&record, named)?
            .ok_or_else(|| Problem::bad("standard plugins are part of the service: name one that was pushed"))?;
        let text = digest.to_string();
        let plugin = record.plugins.get(&text).ok_or_else(|| Problem::missing("there is no such plugin"))?;
        Ok((digest, view(&record, &text, plugin)))
    }

    /// Its bytes, held against its digest.
    pub(super) async fn plugin_bytes(&self, digest: PluginDigest, length: u64) -> Result<Arc<[u8]>, Problem> {
        let path = blob(&self.plugin_dir(), &digest);
        let failed = move |error| Problem::internal(format!("cannot read plugin {digest}: {error}"));
        let read = self.parts.background.run(move || {
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(1));
            std::fs::File::open(path)?.take(length.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok((PluginDigest(Sha256::digest(&bytes).into()), Arc::from(bytes)))
        });
        match read.await.flatten().map_err(failed)? {
            (found, bytes) if found == digest => Ok(bytes),
            _ => Err(Problem::internal(format!("plugin {digest} was changed on disk: push it again"))),
        }
    }

    /// Its file from the first byte on, which was held against its digest, and how long it is. Files of plugins
    /// change by rename only, so it stays what it is.
    pub(super) async fn plugin_file(&self, digest: PluginDigest) -> Result<(u64, std::fs::File), Problem> {
        let path = blob(&self.plugin_dir(), &digest);
        let opened = self.parts.background.run(move || {
            let mut file = std::fs::File::open(path)?;
            let mut hasher = Sha256::new();
            let length = std::io::copy(&mut file, &mut hasher)?;
            file.rewind()?;
            Ok((length, PluginDigest(hasher.finalize().into()), file))
        });
        match opened.await.flatten() {
            Ok((length, found, file)) if found == digest => Ok((length, file)),
            Ok(_) => Err(Problem::internal(format!("plugin {digest} was changed on disk: push it again"))),
            Err(error) => Err(Problem::internal(format!("cannot read plugin {digest}: {error}"))),
        }
    }

    /// Takes a plugin in: checks it, compiles it, keeps it.
    pub(super) async fn push(&self, bytes: Vec<u8>, named: Option<String>) -> Result<(PluginView, bool), Problem> {
        let names = named.as_deref().map(tag).transpose()?;
        self.take_in(bytes, names.into_iter().collect()).await
    }

    /// Takes a plugin in out of a registry.
    pub(super) async fn pull(&self, reference: &str, named: Option<String>) -> Result<(PluginView, bool), Problem> {
        let mut names: Vec<String> = named.as_deref().map(tag).transpose()?.into_iter().collect();
        let record = self.record();
        let most = record.budget.plugin_bytes;
        let mut taken = Taken::default();
        self.room.take(&mut taken, most)?;
        let pulled = self.parts.host.pull(reference, &record.egress, most).await;
        let Pulled { reference, bytes } = pulled.map_err(|PullError { wrong, passing }| match passing {
            true => Problem::unavailable(wrong.message).hints(wrong.hints),
            false => Problem::from(wrong),
        })?;
        names.push(without_tag(&reference));
        self.take_in(bytes, names).await
    }

    async fn take_in(&self, bytes: Vec<u8>, names: Vec<String>) -> Result<(PluginView, bool), Problem> {
        let hashed =
            (self.parts.background).run(move || (PluginDigest(Sha256::digest(&bytes).into()), Arc::from(bytes)));
        let (digest, bytes): (_, Arc<[u8]>) = hashed.await.map_err(|error| Problem::internal(error.to_string()))?;
        let text = digest.to_string();
        let length = bytes.len() as u64;
        let inspected = self.compile(self.parts.host.inspect(Arc::clone(&bytes))).await?;
        let (path, disk) = (blob(&self.plugin_dir(), &digest), Arc::clone(&self.parts.disk));
        let failed = |error| Problem::internal(format!("cannot keep the plugin: {error}"));
        // What was changed on disk is pushed again.
        if !self.record().plugins.contains_key(&text) || self.plugin_file(digest).await.is_err() {
            // One after the other: the same plugin may be on its way twice.
            self.alone(move || record::keep(&*disk, &path, &bytes).map_err(failed)).await?;
        }
        let pushed = self.parts.clock.wall().0;
        let Inspected { name, version, about } = inspected;
        let made = self.change({
            let text = text.clone();
            move |record| {
                let is_new = !record.plugins.contains_key(&text);
                if is_new && record.plugins.len() >= record.budget.plugins as usize {
                    let most = record.budget.plugins;
                    return Err(Problem::over_budget(format!("the tenant has {most} plugins, and may have no more")));
                }
                let plugin = PluginRecord { bytes: length, pushed, name, version, signatures: Vec::new() };
                record.plugins.entry(text.clone()).or_insert(plugin);
                for named in names {
                    let tags_max = 10 * record.budget.plugins as usize;
                    if record.tags.len() >= tags_max && !record.tags.contains_key(&named) {
                        return Err(Problem::over_budget(format!("the tenant has {tags_max} names of plugins")));
                    }
                    record.tags.insert(named, text.clone());
                }
                Ok(is_new)
            }
        });
        let is_new = made.await?;
        let mut view = self.plugin(&text)?.1;
        view.about = Some(about);
        Ok((view, is_new))
    }

    /// Adds a signature to a plugin.
    pub(super) async fn sign(&self, named: &str, signature: String) -> Result<PluginView, Problem> {
        let (digest, _) = self.plugin(named)?;
        signatures::signature(&signature)?;
        let text = digest.to_string();
        let key = text.clone();
        self.change(move |record| {
            if signatures::signer(&digest, std::slice::from_ref(&signature), &record.signers).is_none() {
                return Err(Problem::wrong("this is no signature over the digest by a signer of the tenant")
                    .hint("what is signed is the text of the digest, \"sha256:…\", without a line break"));
            }
            let Some(plugin) = record.plugins.get_mut(&key) else { return Err(Problem::missing("it was removed")) };
            if !plugin.signatures.contains(&signature) {
                plugin.signatures.push(signature);
                // The newest count.
                let surplus = plugin.signatures.len().saturating_sub(16);
                plugin.signatures.drain(..surplus);
            }
            Ok(())
        })
        .await?;
        Ok(self.plugin(&text)?.1)
    }

    /// Removes a plugin that no job needs.
    pub(super) async fn remove_plugin(&self, named: &str) -> Result<(), Problem> {
        let (digest, _) = self.plugin(named)?;
        let text = digest.to_string();
        self.change(move |record| {
            let users: BTreeSet<&str> = (record.jobs.iter())
                .filter(|(_, job)| {
                    job.text.contains(&text)
                        || job.next.as_ref().is_some_and(|next| next.text.contains(&text))
                        || job.plugins().any(|digest| *digest == text)
                })
                .map(|(name, _)| name.as_str())
                .collect();
            if !users.is_empty() {
                let users: Vec<&str> = users.into_iter().collect();
                return Err(Problem::conflict(format!("the plugin is used by {}", users.join(", "))));
            }
            record.plugins.remove(&text);
            record.tags.retain(|_, digest| *digest != text);
            Ok(())
        })
        .await?;
        let path = blob(&self.plugin_dir(), &digest);
        // What cannot be removed is known to nobody any more.
        let _left = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_means_nothing_beside_a_digest() {
        for (text, plain) in [
            ("oci://a.org:5000/b/c:1.0@sha256:00", "oci://a.org:5000/b/c@sha256:00"),
            ("oci://a.org:5000/b/c@sha256:00", "oci://a.org:5000/b/c@sha256:00"),
            ("oci://a.org:5000/b/c:1.0", "oci://a.org:5000/b/c:1.0"),
            ("oci://", "oci://"),
            ("oci://@", "oci://@"),
        ] {
            assert_eq!(without_tag(text), plain);
        }
    }

    #[test]
    fn names_lead_nowhere_but_to_plugins() {
        assert_eq!(tag("classify").expect("a name"), "classify:latest");
        assert_eq!(tag("classify:1.2.0").expect("a name"), "classify:1.2.0");
        for bad in ["", ":", "a:", ":b", "../x", "a:../x", "/a", "a/b", "a:.", "A", "é", "a\0", "%2e%2e", "a:b:c"] {
            assert!(tag(bad).is_err(), "{bad:?}");
        }
        assert!(tag(&"a".repeat(64)).is_err());
    }
}
