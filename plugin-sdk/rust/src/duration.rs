use std::time::Duration;

/// A length of time as configurations write it: a whole number and `ms`, `s`, `m`, `h` or `d`.
///
/// ```
/// assert_eq!(wasmill_sdk::duration("90s"), Some(std::time::Duration::from_secs(90)));
/// assert_eq!(wasmill_sdk::duration("90"), None);
/// ```
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(millis).map(Duration::from_millis)
}
