//! Signatures of plugins: ed25519 over the digest as it is written, `sha256:…`.

use ed25519_dalek::{Signature, VerifyingKey};
use wasmill_model::PluginDigest;

use super::problem::Problem;

/// Reads a public key: 64 hexadecimal digits.
pub(super) fn key(text: &str) -> Result<VerifyingKey, Problem> {
    let wrong = || Problem::bad("a key is the 32 bytes of an ed25519 public key, in hexadecimal digits");
    let bytes: [u8; 32] = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong())?;
    // Such a key has valid signatures that nobody made.
    if key.is_weak() { Err(Problem::bad("this key is weak: make another one")) } else { Ok(key) }
}

/// Reads a signature: 128 hexadecimal digits.
pub(super) fn signature(text: &str) -> Result<Signature, Problem> {
    let wrong = || Problem::bad("a signature is the 64 bytes of an ed25519 signature, in hexadecimal digits");
    let bytes: [u8; 64] = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    Ok(Signature::from_bytes(&bytes))
}

/// The signer whose signature over a digest is among these.
pub(super) fn signer<'a>(
    digest: &PluginDigest,
    signatures: &[String],
    signers: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Option<&'a str> {
    let signed = digest.to_string();
    let keys = signers.into_iter().filter_map(|(name, text)| Some((name, key(text).ok()?)));
    let made: Vec<Signature> = signatures.iter().filter_map(|text| signature(text).ok()).collect();
    keys.into_iter()
        .find(|(_, key)| made.iter().any(|signature| key.verify_strict(signed.as_bytes(), signature).is_ok()))
        .map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn only_a_signature_over_this_digest_by_a_known_key_counts() {
        let (mine, others) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let (digest, another) = (PluginDigest([7; 32]), PluginDigest([8; 32]));
        let signed =
            |key: &SigningKey, digest: &PluginDigest| hex::encode(key.sign(digest.to_string().as_bytes()).to_bytes());
        let signers = [("ci".to_owned(), hex::encode(mine.verifying_key().to_bytes()))];
        let known = || signers.iter().map(|(name, key)| (name, key));
        assert_eq!(signer(&digest, &[signed(&mine, &digest)], known()), Some("ci"));
        assert_eq!(signer(&digest, &[signed(&mine, &another)], known()), None);
        assert_eq!(signer(&digest, &[signed(&others, &digest)], known()), None);
        assert_eq!(signer(&digest, &["00".repeat(64)], known()), None);
        assert_eq!(signer(&digest, &[], known()), None);
        assert!(key("00").is_err() && key(&"00".repeat(32)).is_err(), "short, and weak");
    }
}
