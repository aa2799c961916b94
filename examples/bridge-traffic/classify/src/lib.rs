//! Tells vehicles apart by axles, length and weight, and rejects what no vehicle can be.

use serde::{Deserialize, Serialize};
use wasmill_sdk::prelude::*;
use wasmill_sdk::{reject, serde};

/// What the sensors of a lane say about one vehicle.
#[derive(Debug, Deserialize)]
#[serde(crate = "serde")]
struct Reading<'a> {
    bridge: &'a str,
    lane: u8,
    axles: u8,
    length_m: f64,
    speed_kmh: f64,
    weight_kg: u32,
}

/// What goes on.
#[derive(Debug, Serialize)]
#[serde(crate = "serde")]
struct Vehicle<'a> {
    vehicle: &'static str,
    bridge: &'a str,
    lane: u8,
    speed_kmh: f64,
    weight_kg: u32,
}

/// The operator.
#[derive(Debug)]
pub struct Classify;

impl Operator for Classify {
    type Config = ();

    const COLUMNS: Columns = Columns::VALUES;

    fn open(_: (), _: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let reading: Reading<'_> = event.json().parse()?;
        let vehicle = classify(&reading)?;
        let Reading { bridge, lane, speed_kmh, weight_kg, .. } = reading;
        ctx.emit_json(&Vehicle { vehicle, bridge, lane, speed_kmh, weight_kg })
    }
}

wasmill_sdk::operator!(Classify);

fn classify(reading: &Reading<'_>) -> Result<&'static str, Reject> {
    let &Reading { axles, length_m, speed_kmh, weight_kg, .. } = reading;
    if !(2..=9).contains(&axles) {
        reject!("{axles} axles, expected 2 to 9");
    }
    if !(1.0..=30.0).contains(&length_m) {
        reject!("{length_m} m long, expected 1 to 30");
    }
    if !(0.0..=250.0).contains(&speed_kmh) {
        reject!("{speed_kmh} km/h, expected 0 to 250");
    }
    if !(80..=100_000).contains(&weight_kg) {
        reject!("{weight_kg} kg, expected 80 to 100000");
    }
    Ok(match (axles, length_m, weight_kg) {
        (4.., ..) => "lorry",
        (_, 10.0.., ..16_000) => "bus",
        (_, _, 5_000..) => "truck",
        (_, 5.0.., _) => "van",
        (_, _, ..500) => "motorcycle",
        _ => "car",
    })
}

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::*;

    fn reading(axles: i32, length_m: f64, speed_kmh: f64, weight_kg: i32) -> String {
        format!(
            r#"{{"id":"n-1","bridge":"north","lane":1,"axles":{axles},"length_m":{length_m},"speed_kmh":{speed_kmh},"weight_kg":{weight_kg},"at":0}}"#
        )
    }

    #[test]
    fn vehicles_are_told_apart() {
        for (vehicle, axles, length_m, weight_kg) in [
            ("motorcycle", 2, 2.1, 240),
            ("car", 2, 4.2, 1_400),
            ("van", 2, 5.9, 2_600),
            ("bus", 3, 12.0, 12_000),
            ("truck", 2, 8.0, 14_000),
            ("truck", 3, 11.0, 24_000),
            ("lorry", 5, 16.5, 38_000),
        ] {
            let mut test = Tester::<Classify>::new("");
            test.send("north", reading(axles, length_m, 80.5, weight_kg));
            let expected = format!(
                r#"{{"vehicle":"{vehicle}","bridge":"north","lane":1,"speed_kmh":80.5,"weight_kg":{weight_kg}}}"#
            );
            assert_eq!(test.values(), [expected]);
        }
    }

    #[test]
    fn impossible_readings_are_rejected_with_what_was_expected() {
        let mut test = Tester::<Classify>::new("");
        let good = reading(2, 4.2, 80.0, 1_400);
        let readings = [
            reading(1, 4.2, 80.0, 1_400),
            reading(2, 62.5, 80.0, 1_400),
            reading(2, 4.2, -3.0, 1_400),
            reading(2, 4.2, 80.0, 12),
            good[..50].to_owned(),
            good,
        ];
        test.send_all(readings.iter().map(|reading| ("north", reading)));
        assert_eq!(test.values().len(), 1);
        let reasons: Vec<&str> = test.rejected().iter().map(|rejected| rejected.reason.as_str()).collect();
        let expected = [
            "1 axles, expected 2 to 9",
            "62.5 m long, expected 1 to 30",
            "-3 km/h, expected 0 to 250",
            "12 kg, expected 80 to 100000",
        ];
        assert_eq!(reasons[..4], expected);
        assert!(reasons[4].starts_with("EOF while parsing"), "{}", reasons[4]);
    }
}
