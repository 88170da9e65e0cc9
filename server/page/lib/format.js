/**
 * How figures and times are shown. Pure: the present is an argument wherever it matters.
 */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** What stands where nothing is known. */
export const NONE = '–';

/** Gives a size in bytes as a person reads it, counted by 1024. */
export function bytes(count) {
  if (!isNumber(count)) return NONE;
  let value = count;
  let unit = 0;
  // What would be rounded up to 1024 of a unit is one of the next.
  while (Math.abs(value) >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Gives a rate in bytes a second. */
export function rate(bytesPerSecond) {
  return isNumber(bytesPerSecond) ? `${bytes(bytesPerSecond)}/s` : NONE;
}

/** Gives a whole number with commas between thousands. */
export function count(number) {
  if (!isNumber(number)) return NONE;
  return Math.round(number).toString().replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

/** Gives a number of things by name, such as "1 file" or "3 files". */
export function things(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Gives a share between 0 and 1 in per cent; only all of it is 100 %, and only nothing 0 %. */
export function share(part, whole) {
  if (!isNumber(part) || !isNumber(whole) || whole <= 0) return NONE;
  const percent = (part / whole) * 100;
  if (percent > 0 && percent < 1) return '< 1 %';
  if (percent < 100 && percent > 99) return '99 %';
  return `${Math.round(percent)} %`;
}

/** Gives a ratio such as "1.9 : 1". */
export function ratio(whole, part) {
  if (!isNumber(whole) || !isNumber(part) || part <= 0) return NONE;
  const value = whole / part;
  return `${value.toFixed(value < 10 ? 2 : 1)} : 1`;
}

/** Gives a duration in seconds, by its two largest units. */
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  const whole = Math.round(seconds);
  if (whole < 1) return 'under 1 s';
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return two(whole, MINUTE, 'min', 1, 's');
  if (whole < DAY) return two(whole, HOUR, 'h', MINUTE, 'min');
  return two(whole, DAY, 'd', HOUR, 'h');
}

function two(seconds, large, largeName, small, smallName) {
  const first = Math.floor(seconds / large);
  const second = Math.floor((seconds % large) / small);
  return second === 0 ? `${first} ${largeName}` : `${first} ${largeName} ${second} ${smallName}`;
}

/** Gives the seconds from one moment to another, both RFC 3339; null if one of them is none. */
export function secondsBetween(from, to) {
  const start = Date.parse(from ?? '');
  const end = Date.parse(to ?? '');
  return Number.isNaN(start) || Number.isNaN(end) ? null : (end - start) / 1000;
}

/** Says how long ago a moment was, or in what time it will be; `now` is in milliseconds. */
export function ago(time, now) {
  const moment = Date.parse(time ?? '');
  if (Number.isNaN(moment)) return 'never';
  const seconds = (now - moment) / 1000;
  if (Math.abs(seconds) < 45) return 'just now';
  const about = rounded(Math.abs(seconds));
  return seconds > 0 ? `${about} ago` : `in ${about}`;
}

function rounded(seconds) {
  if (seconds < 90 * MINUTE) return things(Math.max(1, Math.round(seconds / MINUTE)), 'minute');
  if (seconds < 36 * HOUR) return things(Math.round(seconds / HOUR), 'hour');
  if (seconds < 60 * DAY) return things(Math.round(seconds / DAY), 'day');
  return things(Math.round(seconds / (30.44 * DAY)), 'month');
}

/** Gives a moment on the clock of a zone (the browser's own without one), as 2026-11-22 03:15. */
export function moment(time, zone = undefined) {
  const date = new Date(time ?? '');
  if (Number.isNaN(date.getTime())) return NONE;
  const { year, month, day, hour, minute } = parts(date, zone);
  return `${year}-${month}-${day} ${hour}:${minute}`;
}

/** Gives the day of a moment on the clock of a zone, as 2026-11-22. */
export function day(time, zone = undefined) {
  return moment(time, zone).slice(0, 10);
}

/** Gives the hour and minute of a moment on the clock of a zone, as 03:15. */
export function clock(time, zone = undefined) {
  return moment(time, zone).slice(11);
}

/** Gives the short name of the weekday of a moment on the clock of a zone. */
export function weekday(time, zone = undefined) {
  const date = new Date(time ?? '');
  if (Number.isNaN(date.getTime())) return NONE;
  return new Intl.DateTimeFormat('en-GB', { weekday: 'short', timeZone: zone }).format(date);
}

function parts(date, zone) {
  const format = new Intl.DateTimeFormat('en-GB', {
    timeZone: zone,
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  });
  return Object.fromEntries(format.formatToParts(date).map(({ type, value }) => [type, value]));
}

function isNumber(value) {
  return typeof value === 'number' && Number.isFinite(value);
}
