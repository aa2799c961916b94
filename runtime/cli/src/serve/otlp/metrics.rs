//! What `/metrics` says, as OTLP: the same names, labels and numbers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::spans::attribute;

/// A line of a family: its labels, without `le`, and its value.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    bound: Option<f64>,
    value: f64,
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (head, value) = line.rsplit_once(' ')?;
    let (name, mut rest) = head.split_once('{').unwrap_or((head, ""));
    let (mut labels, mut bound) = (Vec::new(), None);
    while let Some((key, behind)) = rest.split_once("=\"") {
        let key = key.trim_start_matches(',');
        let mut text = String::new();
        let mut chars = behind.char_indices();
        let mut end = behind.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, c)) => text.push(c),
                    None => {}
                },
                c => text.push(c),
            }
        }
        rest = &behind[end..];
        if key == "le" {
            bound = text.parse().ok();
        } else {
            labels.push((key, text));
        }
    }
    Some(Sample { name, labels, bound, value: value.parse().ok()? })
}

/// The buckets of one histogram: counts up to each bound.
#[derive(Default)]
struct Buckets {
    up_to: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

impl Buckets {
    fn point(mut self, labels: &[(&str, String)], time: &Map<String, Value>) -> Value {
        self.up_to.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut before = 0.0;
        let counts: Vec<String> = (self.up_to.iter())
            .map(|(_, up_to)| (up_to - std::mem::replace(&mut before, *up_to)).to_string())
            .collect();
        // The last has no bound.
        let bounds: Vec<f64> = self.up_to.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect();
        let mut point = point(labels, time);
        point["count"] = json!(self.count.to_string());
        point["sum"] = json!(self.sum);
        point["bucketCounts"] = json!(counts);
        point["explicitBounds"] = json!(bounds);
        point
    }
}

fn point(labels: &[(&str, String)], time: &Map<String, Value>) -> Value {
    let attributes: Vec<Value> = labels.iter().map(|(key, text)| attribute(key, text)).collect();
    let mut point = Value::Object(time.clone());
    point["attributes"] = json!(attributes);
    point
}

fn family(name: &str, kind: &str, help: &str, samples: &[Sample<'_>], time: &Map<String, Value>) -> Value {
    let with_value = |sample: &Sample<'_>| {
        let mut point = point(&sample.labels, time);
        point["asDouble"] = json!(sample.value);
        point
    };
    let mut metric = json!({"name": name, "description": help});
    match kind {
        "counter" => {
            let points: Vec<Value> = samples.iter().map(with_value).collect();
            metric["sum"] = json!({"dataPoints": points, "aggregationTemporality": 2, "isMonotonic": true});
        }
        "histogram" => {
            let mut all: BTreeMap<&[(&str, String)], Buckets> = BTreeMap::new();
            for sample in samples {
                let buckets = all.entry(&sample.labels).or_default();
                match (sample.name.rsplit_once('_').map(|(_, part)| part), sample.bound) {
                    (Some("bucket"), Some(bound)) => buckets.up_to.push((bound, sample.value)),
                    (Some("sum"), _) => buckets.sum = sample.value,
                    (Some("count"), _) => buckets.count = sample.value,
                    _ => {}
                }
            }
            let points: Vec<Value> = all.into_iter().map(|(labels, buckets)| buckets.point(labels, time)).collect();
            metric["histogram"] = json!({"dataPoints": points, "aggregationTemporality": 2});
        }
        _ => {
            let points: Vec<Value> = samples.iter().map(with_value).collect();
            metric["gauge"] = json!({"dataPoints": points});
        }
    }
    metric
}

/// The text of `/metrics` as the body of a request. Times are nanoseconds since the Unix epoch.
pub(super) fn body(text: &str, since: u64, now: u64) -> Value {
    let time = json!({"startTimeUnixNano": since.to_string(), "timeUnixNano": now.to_string()});
    let time = time.as_object().cloned().unwrap_or_default();
    let mut metrics = Vec::new();
    let (mut name, mut kind, mut help, mut samples) = ("", "", "", Vec::new());
    for line in text.lines().chain(["# TYPE"]) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(of), said) => {
                if !samples.is_empty() {
                    metrics.push(family(name, kind, help, &samples, &time));
                    samples.clear();
                }
                (name, help) = (of, said.unwrap_or_default());
            }
            (Some("#"), Some("TYPE"), Some(_), said) => kind = said.unwrap_or_default(),
            (Some("#"), ..) => {
                if !samples.is_empty() {
                    metrics.push(family(name, kind, help, &samples, &time));
                    samples.clear();
                }
            }
            _ => samples.extend(sample(line)),
        }
    }
    json!({"resourceMetrics": [{
        "resource": {"attributes": [attribute("service.name", "wasmill")]},
        "scopeMetrics": [{"scope": {"name": "wasmill", "version": env!("CARGO_PKG_VERSION")}, "metrics": metrics}],
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_reads_is_what_a_collector_gets() {
        let text = "# HELP wasmill_rows Rows that came in.\n# TYPE wasmill_rows counter\n\
                    wasmill_rows_total{job=\"a\",node=\"x\\\"y\"} 5\nwasmill_rows_total{job=\"b\",node=\"z\"} 7\n\
                    # HELP wasmill_up Up.\n# TYPE wasmill_up gauge\nwasmill_up 1\n\
                    # HELP wasmill_call Calls.\n# TYPE wasmill_call histogram\nwasmill_call_sum{job=\"a\"} 9.5\n\
                    wasmill_call_count{job=\"a\"} 3\nwasmill_call_bucket{le=\"0.5\",job=\"a\"} 1\n\
                    wasmill_call_bucket{le=\"2.0\",job=\"a\"} 1\nwasmill_call_bucket{le=\"+Inf\",job=\"a\"} 3\n# EOF\n";
        let body = body(text, 1, 2);
        let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().expect("metrics");
        let names: Vec<_> = metrics.iter().map(|metric| metric["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["wasmill_rows", "wasmill_up", "wasmill_call"]);
        let points = &metrics[0]["sum"]["dataPoints"];
        assert_eq!(points[0]["attributes"][1], json!({"key": "node", "value": {"stringValue": "x\"y"}}));
        assert_eq!((&points[0]["asDouble"], &points[1]["asDouble"]), (&json!(5.0), &json!(7.0)));
        assert_eq!((&points[0]["startTimeUnixNano"], &points[0]["timeUnixNano"]), (&json!("1"), &json!("2")));
        assert_eq!(metrics[1]["gauge"]["dataPoints"][0]["asDouble"], 1.0);
        let point = &metrics[2]["histogram"]["dataPoints"][0];
        assert_eq!(point["explicitBounds"], json!([0.5, 2.0]));
        assert_eq!((&point["bucketCounts"], &point["count"]), (&json!(["1", "0", "2"]), &json!("3")));
        assert_eq!(point["sum"], 9.5);
    }
}
