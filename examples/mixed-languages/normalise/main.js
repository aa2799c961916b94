// Makes degrees Celsius of whatever unit a thermometer reports in.

import { Reject, operator } from 'wasmill';

const toCelsius = { C: (value) => value, F: (value) => ((value - 32) * 5) / 9, K: (value) => value - 273.15 };

export default operator({
  event(event, ctx) {
    const { at, sensor, value, unit } = event.json();
    const convert = toCelsius[unit];
    if (!convert) throw new Reject(`unit ${JSON.stringify(unit)} is none of C, F, K`);
    ctx.emitJson({ at, sensor, celsius: Math.round(convert(value) * 100) / 100 });
  },
});
