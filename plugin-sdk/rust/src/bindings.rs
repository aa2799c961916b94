//! What `wit-bindgen` makes of `wit/operator.wit`.
//!
//! One world of everything, so that there is one Rust type for each of WIT. A plugin exports the
//! interfaces of *its* world only, and carries the component type of that world (`worlds/`): see
//! `export`. Imports that a plugin does not use are dropped when the component is made.

wit_bindgen::generate!({
    path: "wit/operator.wit",
    inline: "
        package wasmill:sdk;
        world everything {
            include wasmill:operator/stateful@0.1.0;
            export wasmill:operator/aggregate@0.1.0;
        }
    ",
    world: "wasmill:sdk/everything",
    pub_export_macro: true,
    export_macro_name: "export_everything",
    default_bindings_module: "wasmill_sdk::bindings",
    generate_all,
});
