//! The compile worker that the tests of this crate run.

fn main() -> std::process::ExitCode {
    wasmill_wasm::compile_worker_main()
}
