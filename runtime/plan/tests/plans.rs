//! What every plan holds, on many made-up jobs, and how rows travel on a few known ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fmt::Write;

use wasmill_model::{Descriptor, NodeName};
use wasmill_plan::{Exchange, Explanation, Facts, Picture, Plan, Routing, exchange, plan};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn made_up(seed: u64) -> String {
    let mut dice = Dice(seed);
    let mut text = "name = \"job\"\n".to_owned();
    let mut nodes: Vec<String> = Vec::new();
    let parallelism = |dice: &mut Dice| [1, 1, 2, 4][dice.roll(4) as usize];
    for number in 0..=dice.roll(3) {
        let connector = ["file", "stdin", "generator"][dice.roll(3) as usize];
        let tasks = parallelism(&mut dice);
        writeln!(text, "[source.s{number}]\nconnector = \"{connector}\"\nparallelism = {tasks}").unwrap();
        nodes.push(format!("s{number}"));
    }
    let ends = dice.roll(4);
    for number in 0..=dice.roll(12) + ends {
        let plugin = ["filter", "map", "dedup", "aggregate"][dice.roll(4) as usize];
        let mut inputs: Vec<String> = Vec::new();
        for _ in 0..=dice.roll(5).saturating_sub(2) {
            let from = &nodes[dice.roll(nodes.len() as u64) as usize];
            if !inputs.iter().any(|input| input.contains(&format!("\"{from}\""))) {
                let key = if dice.roll(3) == 0 { ", key = \"/k\"" } else { "" };
                inputs.push(format!("{{ from = \"{from}\"{key} }}"));
            }
        }
        let (inputs, tasks) = (inputs.join(", "), parallelism(&mut dice));
        if number <= ends {
            let connector = ["file", "stdout"][dice.roll(2) as usize];
            writeln!(text, "[sink.t{number}]\nconnector = \"{connector}\"\ninput = [{inputs}]\nparallelism = {tasks}")
                .unwrap();
        } else {
            let window = if plugin == "aggregate" { "window = { tumbling = \"1s\" }\n" } else { "" };
            writeln!(
                text,
                "[stage.w{number}]\nplugin = \"std:{plugin}\"\ninput = [{inputs}]\nparallelism = {tasks}\n{window}"
            )
            .unwrap();
            nodes.push(format!("w{number}"));
        }
    }
    text
}

fn keeps_by_key(plugin: &Descriptor) -> bool {
    plugin.aggregate || !plugin.spaces.is_empty()
}

/// Where a row may be, followed edge by edge: the tasks hold it by its key, or anywhere.
fn check(plan: &Plan, facts: &Facts) {
    let tasks = |node: usize| plan.chains[plan.nodes[node].chain].parallelism;
    let mut places = vec![0; plan.nodes.len()];
    for (number, chain) in plan.chains.iter().enumerate() {
        assert!(chain.nodes.is_sorted());
        for node in &chain.nodes {
            places[*node] += 1;
            assert_eq!(plan.nodes[*node].chain, number);
        }
    }
    assert!(places.iter().all(|count| *count == 1), "every node is in one chain");
    let mut by_key: Vec<bool> = Vec::new();
    for (place, node) in plan.nodes.iter().enumerate() {
        let inputs: Vec<_> = plan.inputs(place).map(|(_, edge)| edge).collect();
        let mut owned = tasks(place) == 1 || !inputs.is_empty();
        for edge in &inputs {
            assert!(edge.from < edge.to);
            let local = plan.nodes[edge.from].chain == node.chain;
            assert_eq!(edge.routing == Routing::Local, local);
            match edge.routing {
                Routing::Local | Routing::Forward => {
                    assert_eq!(tasks(edge.from), tasks(place));
                    assert!(edge.key.is_none() || tasks(place) == 1);
                    assert!(!local || inputs.len() == 1);
                    owned &= by_key[edge.from] || tasks(place) == 1;
                }
                Routing::Keyed | Routing::Merged => {}
                Routing::Split => assert_eq!((tasks(edge.from), inputs.len()), (1, 1)),
            }
        }
        if facts.stages.get(&node.name).is_some_and(keeps_by_key) {
            assert!(owned, "{} keeps state and gets rows that another task owns", node.name);
        }
        by_key.push(owned);
    }
}

#[test]
fn made_up_jobs_have_sound_plans() {
    for seed in 0..2_000 {
        let job = support::job(&made_up(seed));
        let facts = support::facts(&job);
        let planned = plan(&job, &facts).unwrap_or_else(|wrong| panic!("seed {seed}: {}", wrong[0].render(false)));
        check(&planned.plan, &facts);
        let picture = Picture::new(&job, &facts, &planned.plan);
        assert!(picture.svg().ends_with("</svg>\n"), "seed {seed}");
        for node in &planned.plan.nodes {
            assert!(picture.text().contains(node.name.as_str()) && picture.mermaid().contains(node.name.as_str()));
        }
        assert!(!Explanation::new(&job, &facts, &planned).to_string().is_empty());
    }
}

fn routing(text: &str) -> Vec<(String, Routing)> {
    let job = support::job(&format!("name = \"job\"\n{text}"));
    let planned = plan(&job, &support::facts(&job)).unwrap();
    let name = |place: usize| -> &NodeName { &planned.plan.nodes[place].name };
    planned.plan.edges.iter().map(|edge| (format!("{} {}", name(edge.from), name(edge.to)), edge.routing)).collect()
}

#[test]
fn a_job_of_one_task_each_is_one_chain() {
    let job = support::job(include_str!("golden/bridge-traffic.toml"));
    let planned = plan(&job, &support::facts(&job)).unwrap();
    assert_eq!(planned.plan.chains.len(), 1);
    assert!(planned.plan.edges.iter().all(|edge| edge.routing == Routing::Local));
    assert_eq!(planned.plan.outputs(0).count(), 1);
}

#[test]
fn parallel_readers_keep_filters_and_pass_rows_to_state_by_key() {
    let text = "[source.s]\nconnector = \"file\"\nparallelism = 4\nkey = \"/k\"\n\
                [stage.f]\nplugin = \"std:filter\"\ninput = \"s\"\nparallelism = 4\n\
                [stage.d]\nplugin = \"std:dedup\"\ninput = \"f\"\nparallelism = 4\n\
                [stage.e]\nplugin = \"std:dedup\"\ninput = \"d\"\nparallelism = 4\n\
                [sink.t]\nconnector = \"file\"\ninput = [\"e\", \"f\"]\nparallelism = 4\n";
    let expected = [
        ("s f", Routing::Local),
        ("f d", Routing::Keyed),
        // A parallel operator may give its rows other keys.
        ("d e", Routing::Keyed),
        ("e t", Routing::Forward),
        ("f t", Routing::Forward),
    ];
    assert_eq!(routing(text), expected.map(|(edge, routing)| (edge.to_owned(), routing)));
}

#[test]
fn lanes_of_a_convoy_are_dealt_to_and_merged() {
    let text = "[source.s]\nconnector = \"file\"\nkey = \"/k\"\n\
                [stage.f]\nplugin = \"std:filter\"\ninput = \"s\"\nparallelism = 4\nordered = { split = \"/a\" }\n\
                [stage.g]\nplugin = \"std:map\"\ninput = \"f\"\nparallelism = 4\nordered = { split = [\"/a\"] }\n\
                [stage.d]\nplugin = \"std:dedup\"\ninput = \"g\"\nparallelism = 2\n\
                [stage.m]\nplugin = \"std:map\"\ninput = \"g\"\n\
                [stage.e]\nplugin = \"std:dedup\"\ninput = \"m\"\nparallelism = 4\nordered = true\n\
                [stage.one]\nplugin = \"std:map\"\ninput = \"e\"\nordered = true\n\
                [sink.t]\nconnector = \"file\"\ninput = \"one\"\n";
    let expected = [
        ("s f", Routing::Split),
        // The same lanes.
        ("f g", Routing::Local),
        ("g d", Routing::Merged),
        ("g m", Routing::Merged),
        ("m e", Routing::Split),
        ("e one", Routing::Merged),
        // One task keeps its order in any case.
        ("one t", Routing::Local),
    ];
    assert_eq!(routing(text), expected.map(|(edge, routing)| (edge.to_owned(), routing)));
}

#[test]
fn state_without_a_key_over_several_tasks_is_a_warning() {
    let text = "name = \"job\"\n[source.s]\nconnector = \"file\"\n\
                [stage.d]\nplugin = \"std:dedup\"\ninput = \"s\"\nparallelism = 4\n\
                [sink.t]\nconnector = \"file\"\ninput = \"d\"\n";
    let job = support::job(text);
    let warnings = plan(&job, &support::facts(&job)).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.contains("gets a key"), "{}", warnings[0].message);
    let keyed = support::job(&text.replace("input = \"s\"", "input = { from = \"s\", key = \"/k\" }"));
    assert!(plan(&keyed, &support::facts(&keyed)).unwrap().warnings.is_empty());
}

#[test]
fn the_largest_job_is_planned_and_drawn() {
    let mut text = "name = \"job\"\n".to_owned();
    for number in 0..333 {
        writeln!(text, "[source.s{number}]\nconnector = \"file\"").unwrap();
        let input = if number == 0 { "\"s0\"".to_owned() } else { format!("[\"s{number}\", \"w{}\"]", number - 1) };
        writeln!(text, "[stage.w{number}]\nplugin = \"std:map\"\ninput = {input}").unwrap();
        writeln!(text, "[sink.t{number}]\nconnector = \"stdout\"\ninput = \"w{number}\"").unwrap();
    }
    let job = support::job(&text);
    let facts = support::facts(&job);
    let planned = plan(&job, &facts).unwrap();
    assert_eq!(planned.paths.len(), 333 * 334 / 2);
    assert!(Explanation::new(&job, &facts, &planned).to_string().contains("and 54611 more"));
    let picture = Picture::new(&job, &facts, &planned.plan);
    assert!(picture.svg().len() > 100_000 && picture.text().lines().count() > 999);
}

#[test]
fn a_port_that_nothing_comes_into_is_a_warning() {
    let text = "name = \"job\"\n[source.s]\nconnector = \"file\"\n\
                [stage.j]\nplugin = \"join.wasm\"\ninput = { left = \"s\" }\n\
                [sink.t]\nconnector = \"file\"\ninput = \"j\"\n";
    let job = support::job(text);
    let warnings = plan(&job, &support::facts(&job)).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].message, "nothing comes into port `right` of stage `j`");
}

fn planned(text: &str) -> Plan {
    let job = support::job(text);
    plan(&job, &support::facts(&job)).unwrap_or_else(|wrong| panic!("{wrong:?}\n{text}")).plan
}

/// The edges into the tasks of a chain, and out of its nodes: from and to, ports, tasks, and how rows travel.
fn ways(plan: &Plan, chain: usize, into: bool) -> Vec<String> {
    let tasks = |node: usize| plan.chains[plan.nodes[node].chain].parallelism;
    let name = |node: usize| &plan.nodes[node].name;
    let end = |edge: &wasmill_plan::Edge| plan.nodes[if into { edge.to } else { edge.from }].chain;
    let edges = plan.edges.iter().filter(|edge| end(edge) == chain);
    let shown = edges.map(|edge| {
        let wasmill_plan::Edge { from, output, to, input, key, routing } = edge;
        format!("{}{}.{output}-{}{}.{input} {key:?} {routing:?}", name(*from), tasks(*from), name(*to), tasks(*to))
    });
    shown.collect()
}

/// Holds an exchange against what it promises, edge by edge.
fn holds(old: &Plan, new: &Plan, exchange: &Exchange) {
    let chain_of = |plan: &Plan, name: &NodeName| plan.nodes[plan.place(name).expect("a node")].chain;
    assert_eq!(exchange.go_on.len() + exchange.made.len(), new.chains.len(), "each chain goes on or is made");
    for &chain in &exchange.go_on {
        let nodes = names(old, chain);
        let there = chain_of(new, &nodes[0]);
        assert!(!exchange.made.contains_key(&there));
        assert_eq!(nodes, names(new, there));
        assert!(nodes.iter().all(|name| !exchange.opened.contains(name) && !exchange.gone.contains(name)));
        for into in [true, false] {
            assert_eq!(ways(old, chain, into), ways(new, there, into), "nothing about it differs");
        }
    }
    let new_queue = |chain: usize| exchange.made.get(&chain) == Some(&None);
    for edge in &new.edges {
        let (from, to) = (new.nodes[edge.from].chain, new.nodes[edge.to].chain);
        let made = exchange.made.contains_key(&from);
        assert!(from == to || !new_queue(to) || made, "who sends to a new queue is made anew");
    }
    for (&chain, queue) in &exchange.made {
        if let Some(queue) = queue {
            assert!(!exchange.go_on.contains(queue), "a queue is kept once");
            assert_eq!(
                ways(old, *queue, true).len() - inner(old, *queue),
                ways(new, chain, true).len() - inner(new, chain)
            );
        }
    }
    for node in &old.nodes {
        let known = new.place(&node.name).is_some();
        assert_eq!(known, !exchange.gone.contains(&node.name));
        if known && !exchange.go_on.contains(&node.chain) {
            assert!(exchange.made.contains_key(&chain_of(new, &node.name)), "a node that stops goes on somewhere");
        }
    }
}

fn names(plan: &Plan, chain: usize) -> Vec<NodeName> {
    plan.chains[chain].nodes.iter().map(|&node| plan.nodes[node].name.clone()).collect()
}

/// How many edges stay within a chain.
fn inner(plan: &Plan, chain: usize) -> usize {
    plan.edges.iter().filter(|edge| plan.nodes[edge.from].chain == chain && plan.nodes[edge.to].chain == chain).count()
}

#[test]
fn an_exchange_leaves_alone_what_does_not_differ() {
    let mut made = 0;
    for seed in 0..1_500 {
        let text = made_up(seed);
        let old = planned(&text);
        let same = exchange(&old, &old).expect("nothing differs");
        assert!(same.made.is_empty() && same.opened.is_empty() && same.gone.is_empty(), "{text}");
        let mut dice = Dice(seed ^ 0xabcd);
        let nodes: Vec<NodeName> =
            (old.nodes.iter().filter(|node| node.kind.name() != "sink")).map(|node| node.name.clone()).collect();
        let from = &nodes[dice.roll(nodes.len() as u64) as usize];
        let new = match dice.roll(3) {
            // A branch more.
            0 => format!(
                "{text}[stage.x]\nplugin = \"std:map\"\ninput = \"{from}\"\n[sink.y]\nconnector = \"file\"\ninput = \"x\"\n"
            ),
            // A stage with another number of tasks.
            1 => {
                let Some((before, after)) = text.split_once("[stage.") else { continue };
                let after = ["parallelism = 1", "parallelism = 2", "parallelism = 4"]
                    .iter()
                    .find_map(|tasks| after.find(tasks).map(|at| (at, tasks)))
                    .map(|(at, tasks)| format!("{}parallelism = 3{}", &after[..at], &after[at + tasks.len()..]));
                format!("{before}[stage.{}", after.unwrap())
            }
            // Another job altogether, with some of the names.
            _ => made_up(seed + 1),
        };
        let new = planned(&new);
        if let Ok(exchange) = exchange(&old, &new) {
            holds(&old, &new, &exchange);
            made += 1;
        }
    }
    assert!(made > 500, "{made} exchanges");
}

#[test]
fn a_branch_touches_the_chain_that_it_reads_and_no_other() {
    let job = |more: &str| {
        planned(&format!(
            "name = \"job\"\n[source.s]\nconnector = \"file\"\n\
             [stage.a]\nplugin = \"std:map\"\ninput = \"s\"\nparallelism = 2\n\
             [stage.b]\nplugin = \"std:dedup\"\ninput = {{ from = \"a\", key = \"/k\" }}\nparallelism = 4\n\
             [sink.t]\nconnector = \"file\"\ninput = \"b\"\n{more}"
        ))
    };
    let (old, new) = (job(""), job("[sink.u]\nconnector = \"file\"\ninput = \"a\"\n"));
    let exchange = exchange(&old, &new).expect("it can be");
    let heads = |plan: &Plan, chains: &mut dyn Iterator<Item = usize>| -> Vec<String> {
        chains.map(|chain| names(plan, chain)[0].to_string()).collect()
    };
    assert_eq!(heads(&old, &mut exchange.go_on.iter().copied()), ["s", "b", "t"]);
    assert_eq!(heads(&new, &mut exchange.made.keys().copied()), ["a", "u"]);
    let a = new.nodes[new.place(&support::name("a")).expect("a node")].chain;
    assert!(exchange.made[&a].is_some(), "what waits for `a` stays where it is");
}
