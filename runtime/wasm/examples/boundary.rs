//! What it costs to take a batch across the boundary: a filter through the component interface
//! against the same filter in a core module that shares a buffer with the host.
//!
//! ```text
//! cargo run --release -p wasmill-wasm --example boundary
//! ```
//!
//! Prints one JSON object a line: nanoseconds an event (thread CPU time), medians of pairs.

#![expect(clippy::print_stdout, reason = "a program that prints figures")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops where anything fails")]

use rustix::time::{ClockId, clock_gettime};
use wasmill_contract::{Operator, OperatorContext, Share};
use wasmill_env::{Clock, RealClock};
use wasmill_model::{Batch, BatchBuilder, NodeName, Output, Timestamp};
use wasmill_store::MemoryState;
use wasmill_wasm::{Grants, HostSettings, InstanceLimits, WasmHost};
use wasmtime::{Config, Engine, Instance, Memory, Module, Store, TypedFunc};
use wit_component::StringEncoding;

const PAIRS: usize = 41;
const CALLS: usize = 200;

/// The loop of both filters: keeps a row where its 17th byte is even. Both find the bytes of the
/// values at `$data`, their ends at `$ends`, and write a bitmap to `$bits`.
const FILTER: &str = r#"
(func $filter (param $ends i32) (param $rows i32) (param $data i32) (param $bits i32)
  (local $row i32) (local $start i32) (local $word i64) (local $end i32)
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
      (local.set $end (i32.load (i32.add (local.get $ends) (i32.shl (local.get $row) (i32.const 2)))))
      (if (i32.lt_u (i32.add (local.get $start) (i32.const 16)) (local.get $end))
        (then
          (local.set $word (i64.or (local.get $word)
            (i64.shl
              (i64.extend_i32_u (i32.and (i32.const 1) (i32.xor (i32.const 1)
                (i32.load8_u offset=16 (i32.add (local.get $data) (local.get $start))))))
              (i64.extend_i32_u (i32.and (local.get $row) (i32.const 63))))))))
      (local.set $start (local.get $end))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (if (i32.eqz (i32.and (local.get $row) (i32.const 63)))
        (then
          (i64.store (local.get $bits) (local.get $word))
          (local.set $bits (i32.add (local.get $bits) (i32.const 8)))
          (local.set $word (i64.const 0))))
      (br $next)))
  (i64.store (local.get $bits) (local.get $word)))
"#;

fn operator_module() -> Vec<u8> {
    let text = format!(
        r#"(module
          (memory (export "memory") 64)
          (global $heap (mut i32) (i32.const 65536))
          (data (i32.const 1024) "\00\00\00\00"
            "\4c\04\00\00\06\00\00\00" "\4c\04\00\00\01\00\00\00"
            "\58\04\00\00\01\00\00\00" "\58\04\00\00\01\00\00\00"
            "\00\00\00\00\00\00\00\00" "\04\00\00\00")
          (data (i32.const 1100) "filter")
          (data (i32.const 1112) "\4c\04\00\00\06\00\00\00")
          (data (i32.const 1200) "\00\00\00\00" "\00\08\00\00\01\00\00\00")
          (data (i32.const 2048) "\00\00\00\00" "\01\00\00\00" "\00\10\00\00")
          {FILTER}
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.set $heap (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
          (func (export "wasmill:operator/plugin@0.1.0#describe") (param i32 i32) (result i32) (i32.const 1024))
          (func (export "wasmill:operator/plugin@0.1.0#open") (param i32 i32) (result i32) (i32.const 1232))
          (func (export "wasmill:operator/operator@0.1.0#flush") (result i32) (i32.const 1232))
          (func (export "wasmill:operator/operator@0.1.0#process")
            (param i32 i32 i32 i32 i32 i32 i32) (param $ends i32) (param $rows i32) (param $data i32) (param i32)
            (result i32)
            (call $filter (local.get $ends) (local.get $rows) (local.get $data) (i32.const 4096))
            (i32.store (i32.const 2060) (i32.shr_u (i32.add (local.get $rows) (i32.const 63)) (i32.const 6)))
            (global.set $heap (i32.const 65536))
            (i32.const 1200)))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/operator.wit");
    let package = resolve.push_str(wit, &std::fs::read_to_string(wit).unwrap()).unwrap();
    let world = resolve.select_world(&[package], Some("stateless")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// The core module: ends at 64 KiB, values at 128 KiB, bitmap at 4 KiB.
struct Shared {
    store: Store<()>,
    memory: Memory,
    run: TypedFunc<i32, ()>,
}

impl Shared {
    const ENDS: usize = 64 << 10;
    const DATA: usize = 128 << 10;
    const BITS: usize = 4 << 10;

    fn new() -> Self {
        let text = format!(
            r#"(module (memory (export "memory") 64) {FILTER}
              (func (export "run") (param $rows i32)
                (call $filter (i32.const 65536) (local.get $rows) (i32.const 131072) (i32.const 4096))))"#
        );
        let engine = Engine::new(Config::new().epoch_interruption(true).concurrency_support(false)).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(u64::MAX / 2);
        let module = Module::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let run = instance.get_typed_func(&mut store, "run").unwrap();
        Self { store, memory, run }
    }

    fn filter(&mut self, batch: &Batch, bits: &mut Vec<u64>) {
        let shared = self.memory.data_mut(&mut self.store);
        let ends = batch.values().ends();
        for (into, end) in shared[Self::ENDS..].chunks_exact_mut(4).zip(ends) {
            into.copy_from_slice(&end.to_le_bytes());
        }
        let data = batch.values().data();
        shared[Self::DATA..Self::DATA + data.len()].copy_from_slice(data);
        self.run.call(&mut self.store, ends.len() as i32).unwrap();
        let shared = self.memory.data(&self.store);
        bits.clear();
        let words = shared[Self::BITS..Self::BITS + ends.len().div_ceil(64) * 8].chunks_exact(8);
        bits.extend(words.map(|word| u64::from_le_bytes(word.try_into().unwrap())));
    }
}

fn batch(rows: usize) -> Batch {
    let mut builder = BatchBuilder::default();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for row in 0..rows {
        let value: Vec<u8> = (0..100)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .collect();
        builder.push(Timestamp(row as i64), format!("key-{row:012}").as_bytes(), &value);
    }
    builder.finish(0)
}

fn cpu_nanos() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn context() -> OperatorContext {
    let stage = NodeName::new("filter").unwrap();
    OperatorContext::new(stage, Share { index: 0, of: 1 }, Box::new(MemoryState::default()))
}

async fn through_component(operator: &mut dyn Operator, batch: &Batch) -> Vec<u64> {
    let mut outcome = operator.process(0, batch).await.unwrap();
    match outcome.emissions.pop().map(|emission| emission.output) {
        Some(Output::Keep(bits)) => bits.into_words(),
        other => panic!("not a bitmap: {other:?}"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let cache = tempfile::tempdir().unwrap();
    let host = WasmHost::new(HostSettings::in_process(cache.path())).unwrap();
    let module = operator_module();
    let clock = RealClock::default();
    let cold = clock.monotonic_nanos();
    let plugin = host.load(module.clone(), InstanceLimits::default(), Grants::ALL).await.unwrap();
    let cold = clock.monotonic_nanos() - cold;
    let (mut loads, mut opens) = (Vec::new(), Vec::new());
    let factory = plugin.configure(Vec::new()).await.unwrap();
    for _ in 0..PAIRS {
        let start = clock.monotonic_nanos();
        let plugin = host.load(module.clone(), InstanceLimits::default(), Grants::ALL).await.unwrap();
        let middle = clock.monotonic_nanos();
        drop(factory.open(context()).await.unwrap());
        loads.push((middle - start) as f64);
        opens.push((clock.monotonic_nanos() - middle) as f64);
        drop(plugin);
    }
    println!(
        r#"{{"name":"load","cold_us":{:.0},"warm_us":{:.0},"open_and_close_us":{:.1}}}"#,
        cold as f64 / 1e3,
        median(loads) / 1e3,
        median(opens) / 1e3
    );
    let mut operator = factory.open(context()).await.unwrap();
    let mut shared = Shared::new();
    for rows in [0, 1, 100, 1_000, 4_000] {
        let batch = batch(rows);
        let mut bits = Vec::new();
        shared.filter(&batch, &mut bits);
        assert_eq!(bits, through_component(&mut *operator, &batch).await, "both filters agree");
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            let start = cpu_nanos();
            for _ in 0..CALLS {
                std::hint::black_box(through_component(&mut *operator, &batch).await);
            }
            let middle = cpu_nanos();
            for _ in 0..CALLS {
                shared.filter(std::hint::black_box(&batch), &mut bits);
                std::hint::black_box(&bits);
            }
            let end = cpu_nanos();
            let each = |nanos: u64| nanos as f64 / (CALLS * rows.max(1)) as f64;
            ours.push(each(middle - start));
            theirs.push(each(end - middle));
            ratios.push((middle - start) as f64 / (end - middle) as f64);
        }
        println!(
            r#"{{"name":"boundary-filter","rows":{rows},"ns":{:.2},"against":"shared buffer","against_ns":{:.2},"ratio":{:.2}}}"#,
            median(ours),
            median(theirs),
            median(ratios)
        );
    }
}
