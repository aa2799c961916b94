//! `worlds/` holds what `wit/operator.wit` says, and that file is the one of the repository.

use std::path::Path;

use wit_component::StringEncoding;
use wit_parser::Resolve;

/// `WASMILL_BLESS=1 cargo test -p wasmill-sdk --test worlds` writes them anew.
#[test]
fn component_types_are_those_of_the_wit_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root.join("wit/operator.wit")).expect("valid WIT");
    for world in ["stateless", "stateful", "windowed"] {
        let id = resolve.select_world(&[package], Some(world)).expect("a world");
        let bytes = wit_component::metadata::encode(&resolve, id, StringEncoding::UTF8, None).expect("encodable");
        let path = root.join("worlds").join(world);
        if std::env::var_os("WASMILL_BLESS").is_some() {
            std::fs::write(&path, &bytes).expect("writable");
        }
        assert!(std::fs::read(&path).ok().is_some_and(|file| file == bytes), "{} is not up to date", path.display());
    }
}

#[test]
fn wit_file_is_the_one_of_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(original) = std::fs::read_to_string(root.join("../../wit/operator.wit")) else {
        return; // A copy of the SDK, outside of the repository.
    };
    let copy = std::fs::read_to_string(root.join("wit/operator.wit")).expect("the SDK's copy");
    assert!(copy == original, "copy wit/operator.wit to plugin-sdk/rust/wit, then bless plugin-sdk/rust/worlds");
}
