//! Order over deaths: rows of a buffer that wait on disk, watermarks of another source at a barrier, and
//! two sources in one sequence.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Done, Folder};

const RUN: [&str; 5] = ["run", "job.toml", "--state", "state", "--json"];

fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Puts rows in order that come in none, with memory for few of them.
const SPILL: &str = "name = \"sort\"\nepoch = { interval = \"5ms\" }\n\
    [source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nkey = \"/k\"\ntime = { field = \"/t\", unit = \"ms\" }\n\
    [stage.all]\nplugin = \"std:filter\"\nconfig = { where = \"true\" }\n\
    input = { from = \"in\", order = { by = \"time\", bound = \"1h\", bytes_max = \"64KiB\", spill = \"64MiB\" } }\n\
    [sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"all\"\n";

#[test]
fn rows_that_wait_on_disk_are_all_there_in_order_whatever_kills_the_job() {
    let count = 60_000_u64;
    let row = |n: u64| format!("{{\"k\":\"{}\",\"t\":{},\"n\":{n}}}\n", n % 7, n * 7_919 % count);
    let folder = Folder::new().with("job.toml", SPILL).with("in.jsonl", (0..count).map(row).collect::<String>());
    folder.run(&["run", "job.toml"]).fails(2, &["`spill` of an ordering buffer needs a directory", "--state DIR"]);
    let on_disk = || {
        let files = std::fs::read_dir(folder.path().join("state/spill")).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>()
    };
    for bytes in [1, 1 << 20, 2 << 20] {
        // With a source that goes on, rows never leave the disk by themselves.
        let mut child = folder.command().args(RUN).args(["--set", "source.in.follow=true"]).spawn().expect("it starts");
        while on_disk() < bytes && child.try_wait().expect("asked").is_none() {}
        kill(child);
        assert!(on_disk() >= bytes, "it is killed while rows wait on disk");
    }
    for point in ["spill-written:3", "spill-read:5", "spill-removed:2"] {
        let mut command = folder.command();
        command.args(RUN).env("WASMILL_SMALL", "1").env("WASMILL_KILL", point);
        let done = Done::of(command.output().expect("it starts"));
        assert_eq!(done.code, None, "it dies at {point}: {}", done.err);
    }
    let summary = folder.run(&RUN).ok().json();
    let stage = summary["nodes"].as_array().expect("nodes").iter().find(|node| node["name"] == "all").expect("it");
    let ordering = &stage["ordering"];
    assert!(ordering["spilled"].as_u64() > Some(10_000), "{ordering}");
    let none = ["forced", "late", "held", "on_disk"].map(|name| ordering[name].as_u64());
    assert_eq!(none, [Some(0); 4], "{ordering}");
    let times: Vec<u64> = rows(&folder.results()).iter().map(|row| row["t"].as_u64().expect("a time")).collect();
    assert!(times.into_iter().eq(0..count), "every row is there once, in order");
    assert_eq!(on_disk(), 0);
}

/// Counts by the minute, by the marks of another source.
const MARKED: &str = "name = \"marked\"\nepoch = { interval = \"1h\" }\n\
    [source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nfollow = true\nkey = \"/k\"\n\
    time = { field = \"/t\", unit = \"s\" }\nwatermark = { from = \"marks\" }\n\
    [source.marks]\nconnector = \"file\"\npath = \"marks.jsonl\"\nfollow = true\n\
    time = { field = \"/t\", unit = \"s\" }\nwatermark = { skew = false }\n\
    [stage.per-minute]\nplugin = \"std:aggregate\"\ninput = \"in\"\nwindow = { tumbling = \"1m\" }\n\
    config = { count = true }\n\
    [sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"per-minute\"\n";

#[test]
fn marks_right_before_and_right_behind_a_barrier_act_once_whatever_kills_the_job() {
    let folder = Folder::new().with("job.toml", MARKED).with("in.jsonl", "").with("marks.jsonl", "");
    let append = |file: &str, line: String| {
        let file = std::fs::File::options().append(true).open(folder.path().join(file));
        std::io::Write::write_all(&mut file.expect("there"), format!("{line}\n").as_bytes()).expect("written");
    };
    let of_stage = |key: &str| {
        let told = folder.run(&["status", "state", "--json"]);
        let nodes = if told.code == Some(0) { told.json()["nodes"].take() } else { Value::Null };
        let stage = nodes.as_array().and_then(|nodes| nodes.iter().find(|node| node["name"] == "per-minute"));
        stage.and_then(|node| node[key].as_u64()).unwrap_or(0)
    };
    let save = |name: String| folder.run(&["savepoint", "create", "--state", "state", &name]).ok();
    let minutes = 6_u64;
    for minute in 0..minutes {
        let child = folder.command().args(RUN).spawn().expect("it starts");
        for second in [10, 20, 30] {
            append("in.jsonl", format!("{{\"k\":\"a\",\"t\":{}}}", minute * 60 + second));
        }
        while of_stage("rows_in") < 3 {}
        let right_before = minute % 2 == 0;
        if !right_before {
            save(format!("before-{minute}"));
        }
        // Everything before the next minute is there. A mark that was right behind its barrier comes again: what
        // it fires has fired in this life, too.
        append("marks.jsonl", format!("{{\"t\":{}}}", (minute + 1) * 60));
        while of_stage("rows_out") < if right_before && minute > 0 { 2 } else { 1 } {}
        if right_before {
            save(format!("behind-{minute}"));
        }
        kill(child);
    }
    let child = folder.command().args(RUN).spawn().expect("it starts");
    while of_stage("rows_out") < 1 {}
    folder.run(&["drain", "state"]).ok();
    Done::of(child.wait_with_output().expect("it ends")).ok();
    let counts: Vec<u64> = rows(&folder.results()).iter().map(|row| row["count"].as_u64().expect("a count")).collect();
    assert_eq!(counts, vec![3; minutes as usize], "{}", folder.results());
}

/// Two sources that share no clock: the host numbers what they take, and the stage goes by the numbers.
const TURNS: &str = "name = \"turns\"\nepoch = { interval = \"20ms\" }\n\
    [source.left]\nconnector = \"tcp\"\nlisten = \"127.0.0.1:0\"\nsequence = \"turns\"\n\
    [source.right]\nconnector = \"tcp\"\nlisten = \"127.0.0.1:0\"\nsequence = \"turns\"\n\
    [stage.in-turn]\nplugin = \"std:filter\"\nconfig = { where = \"true\" }\n\
    input = [{ from = \"left\", ORDER }, { from = \"right\", ORDER }]\n\
    [sink.out]\nconnector = \"file\"\npath = \"out.jsonl\"\ninput = \"in-turn\"\n\
    [sink.seen]\nconnector = \"stdout\"\ninput = \"in-turn\"\n";

#[test]
fn rows_of_two_sources_leave_in_the_turn_in_which_the_host_took_them() {
    let order = "order = { by = \"sequence\", field = \"/sequence\", gap = \"2s\" }";
    let folder = Folder::new().with("job.toml", TURNS.replace("ORDER", order));
    for life in 0..3 {
        let mut child = folder.command().args(&RUN[..4]).stdin(Stdio::null()).spawn().expect("it starts");
        let mut errors = BufReader::new(child.stderr.take().expect("piped"));
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut address = |name: &str| loop {
            let mut line = String::new();
            assert_ne!(errors.read_line(&mut line).expect("it speaks"), 0, "it ended");
            if line.contains(name) && line.contains("127.0.0.1:") {
                let from = line.find("127.0.0.1:").unwrap_or_default();
                let end = line[from..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
                return line[from..from + end.unwrap_or(line.len() - from)].to_owned();
            }
        };
        let senders = ["left", "right"].map(|name| (name, address(name)));
        for row in 0..20 {
            // One after the other: each is seen before the next is sent, so that the order of turns is known.
            for (name, address) in &senders {
                let mut stream = std::net::TcpStream::connect(address).expect("it listens");
                let line = format!("{{\"row\":\"{name}-{life}-{row}\"}}\n");
                std::io::Write::write_all(&mut stream, line.as_bytes()).expect("sent");
                let mut seen = String::new();
                while !seen.contains(&format!("\"{name}-{life}-{row}\"")) {
                    seen.clear();
                    assert_ne!(output.read_line(&mut seen).expect("a row"), 0, "it ended");
                }
            }
        }
        if life < 2 {
            kill(child);
        } else {
            folder.run(&["stop", "state"]).ok();
            assert!(child.wait().expect("it ends").success());
        }
    }
    let all = rows(&folder.results());
    let numbers: Vec<u64> = all.iter().map(|row| row["sequence"].as_u64().expect("a number")).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    // Rows that were not committed come again, and get other turns: those of a source stay in order.
    let of = |part: &str| all.iter().filter_map(|row| row["row"].as_str()).filter(|row| row.contains(part)).collect();
    for name in ["left", "right"] {
        let got: Vec<&str> = of(name);
        let sent: Vec<String> =
            (0..3).flat_map(|life| (0..20).map(move |row| format!("{name}-{life}-{row}"))).collect();
        assert_eq!(got, sent);
    }
    let got: Vec<&str> = of("-2-");
    let sent: Vec<String> = (0..20).flat_map(|row| ["left", "right"].map(|name| format!("{name}-2-{row}"))).collect();
    assert_eq!(got, sent, "nobody died in between");
}
