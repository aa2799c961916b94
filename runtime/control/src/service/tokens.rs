//! Tokens: 256 random bits, shown once, kept as a hash.
//!
//! ```text
//! wmt_<tenant>_<id>_<secret>      of a tenant
//! wma_<id>_<secret>               of the operator of the service
//! ```
//!
//! The id finds the record, the secret is compared by its SHA-256 in constant time. A secret with 256
//! random bits needs no slow hash.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use wasmill_model::{TenantName, Timestamp};

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// Nothing longer is a token.
const TOKEN_BYTES_MAX: usize = 200;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// To look.
    Read,
    /// To change jobs, plugins and topics.
    Deploy,
    /// To make and revoke tokens of the tenant.
    Admin,
}

impl Scope {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}

/// A token as its owner gets it. Does not show itself when it is printed for people.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text of the token.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRecord {
    /// What it is called by.
    pub(super) id: String,
    /// What its owner calls it.
    pub(super) name: String,
    /// SHA-256 of the secret, in hexadecimal digits.
    pub(super) hash: String,
    pub(super) scopes: BTreeSet<Scope>,
    /// Microseconds since the Unix epoch.
    pub(super) created: i64,
    /// Microseconds since the Unix epoch, from which on it is nothing.
    pub(super) expires: Option<i64>,
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Operator,
    Tenant(TenantName),
}

/// A token that somebody presents.
pub(super) struct Presented<'a> {
    pub(super) owner: Owner,
    pub(super) id: &'a str,
    secret: &'a str,
}

/// Makes a token.
pub(super) fn make(
    owner: &Owner,
    name: String,
    scopes: BTreeSet<Scope>,
    now: Timestamp,
    expires: Option<i64>,
) -> Result<(Secret, TokenRecord), getrandom::Error> {
    let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
    getrandom::fill(&mut id)?;
    getrandom::fill(&mut secret)?;
    let (id, secret) = (hex::encode(id), hex::encode(secret));
    let hash = hash(&secret);
    let text = match owner {
        Owner::Operator => format!("wma_{id}_{secret}"),
        Owner::Tenant(tenant) => format!("wmt_{tenant}_{id}_{secret}"),
    };
    Ok((Secret(text), TokenRecord { id, name, hash, scopes, created: now.0, expires }))
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

/// Takes a token apart. `None` where it is none.
pub(super) fn parse(text: &str) -> Option<Presented<'_>> {
    if text.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (rest, secret) = text.rsplit_once('_')?;
    let (owner, id) = rest.rsplit_once('_')?;
    let owner = match owner {
        "wma" => Owner::Operator,
        owner => Owner::Tenant(TenantName::new(owner.strip_prefix("wmt_")?).ok()?),
    };
    Some(Presented { owner, id, secret })
}

/// Whether a token is the one that a record is of, and still holds. Without a record it takes as long
/// to say no.
pub(super) fn is_valid(presented: &Presented<'_>, record: Option<&TokenRecord>, now: Timestamp) -> bool {
    let none = "0".repeat(2 * SECRET_BYTES);
    let kept = record.map_or(none.as_str(), |record| record.hash.as_str());
    let same: bool = hash(presented.secret).as_bytes().ct_eq(kept.as_bytes()).into();
    same && record.is_some_and(|record| record.expires.is_none_or(|expires| now.0 < expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Owner {
        Owner::Tenant(TenantName::new("acme-2").expect("a name"))
    }

    #[test]
    fn a_token_is_known_by_its_hash_until_it_expires() {
        for owner in [Owner::Operator, tenant()] {
            let scopes = BTreeSet::from([Scope::Read]);
            let (secret, record) = make(&owner, "ci".into(), scopes, Timestamp(5), Some(10)).expect("random bytes");
            let presented = parse(secret.reveal()).expect("a token");
            assert_eq!((&presented.owner, presented.id), (&owner, record.id.as_str()));
            assert!(is_valid(&presented, Some(&record), Timestamp(9)));
            assert!(!is_valid(&presented, Some(&record), Timestamp(10)), "expired");
            assert!(!is_valid(&presented, None, Timestamp(9)), "revoked");
            let kept = serde_json::to_string(&record).expect("JSON");
            assert!(!kept.contains(presented.secret) && presented.secret.len() == 64);
            assert_eq!(format!("{secret:?}"), "Secret(…)");
            let (other, _) = make(&owner, "ci".into(), BTreeSet::new(), Timestamp(5), None).expect("random bytes");
            let other = parse(other.reveal()).expect("a token");
            assert!(!is_valid(&other, Some(&record), Timestamp(9)));
        }
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for text in ["", "_", "__", "wma", "wmt_x", "wmt__a_b", "wmt_UP_a_b", "wmt_../x_a_b", "wmx_a_b"] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(parse(&format!("wma_{}_b", "a".repeat(1_000))).is_none());
    }
}
