/** Numbers and times as people read them; the same rules as the cards of the notebook. */

const MINUS = '-';

/** Enough digits to tell a tie from a number next to it. */
const EXACT = 60;

/** `value` to so many places; a tie goes to the even digit, as on the cards. */
function fixed(value: number, places: number): string {
  const size = Math.abs(value);
  if (size >= 1e15) {
    return value.toFixed(places);
  }
  const exact = size.toFixed(places + EXACT);
  const rest = exact.slice(exact.length - EXACT);
  const tie = rest[0] === '5' && /^50*$/.test(rest);
  const kept = exact.slice(0, exact.length - EXACT).replace(/\.$/, '');
  const even = Number(kept[kept.length - 1]) % 2 === 0;
  const text = tie && even ? kept : size.toFixed(places);
  return value < 0 ? `-${text}` : text;
}

/** A whole number with its thousands apart. */
export function count(value: number): string {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ',');
}

export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

function unrounded(value: number, top: number, first: number, last: number): string {
  const known = value + 0;
  for (let places = first; places <= last; places++) {
    const text = fixed(known, places);
    const inside = Number(text) > 0 && Number(text) < top;
    if (known === 0 || known === top || known < 0 || known > top || inside) {
      return text;
    }
  }
  const step = 10 ** -last;
  return known < top / 2 ? `<${step.toFixed(last)}` : `>${(top - step).toFixed(last)}`;
}

/** A share in [0, 1] as `97 %`; 0 and 100 only when it is exactly that. */
export function percent(value: number): string {
  return Number.isFinite(value) ? `${unrounded(100 * value, 100, 0, 2)} %` : 'unknown';
}

/** A share in [0, 1] as `0.94`; 0 and 1 are never the result of rounding. */
export function share(value: number, digits = 2): string {
  return Number.isFinite(value) ? unrounded(value, 1, digits, 4) : 'unknown';
}

/** Two digits: `0.004`, `0.00031`, `2.5e-05`, `1e+09`. */
function twoDigits(size: number): string {
  const [digits = '', power = '0'] = size.toExponential(1).split('e');
  if (Number(power) >= -4 && Number(power) < 2) {
    return String(Number(size.toPrecision(2)));
  }
  const padded = String(Math.abs(Number(power))).padStart(2, '0');
  return `${Number(digits)}e${Number(power) < 0 ? '-' : '+'}${padded}`;
}

/** A number with its sign and two decimals; small ones keep two digits. */
export function signed(value: number): string {
  if (!Number.isFinite(value)) {
    return 'unknown';
  }
  if (value === 0) {
    return '0.00';
  }
  const size = Math.abs(value);
  const text = size >= 0.005 && size < 1e9 ? fixed(size, 2) : twoDigits(size);
  return (value < 0 ? MINUS : '+') + text.replace(/\B(?=(\d{3})+\.)/g, ',');
}

/** Bytes in decimal units. */
export function size(bytes: number): string {
  if (bytes < 1000) {
    return `${bytes} B`;
  }
  let amount = bytes;
  for (const unit of ['kB', 'MB', 'GB']) {
    amount /= 1000;
    if (amount < 9.95) {
      return `${fixed(amount, 1)} ${unit}`;
    }
    if (amount < 999.5) {
      return `${fixed(amount, 0)} ${unit}`;
    }
  }
  return `${(amount / 1000).toFixed(1)} TB`;
}

/** Time that passed. */
export function duration(seconds: number): string {
  if (seconds < 9.95) {
    return `${fixed(Math.max(seconds, 0), 1)} s`;
  }
  const whole = Math.round(seconds);
  const pad = (value: number): string => String(value).padStart(2, '0');
  if (whole < 60) {
    return `${whole} s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  }
  const minutes = Math.floor(whole / 60);
  if (minutes < 1440) {
    return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
  }
  const hours = Math.floor(minutes / 60);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** An ISO 8601 time as `2026-03-01 09:30 UTC`, like the cards; anything else as it is. */
export function moment(written: string): string {
  const when = new Date(written);
  return Number.isNaN(when.getTime())
    ? clip(written, 40)
    : `${when.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

/** Text on one line, without characters that would reorder what follows, and not too long. */
export function clip(text: string, most = 60): string {
  const whole = text
    .replace(/[\n\t]/g, ' ')
    .replace(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/gu, '\ufffd');
  return whole.length <= most ? whole : whole.slice(0, most - 1).trimEnd() + '…';
}

/** A value of a row: at most six digits. */
export function scalar(value: unknown): string {
  if (value === null || value === undefined) {
    return 'missing';
  }
  if (typeof value === 'number') {
    return Number.isInteger(value) && Math.abs(value) < 1e15
      ? String(value)
      : String(Number(value.toPrecision(6)));
  }
  return clip(String(value), 40);
}
