/**
 * Schedules in words, and what can be said against one before the server is asked. Pure.
 */

const DAYS_MAX = 366;
const CRON_FIELDS = [
  { name: 'minute', min: 0, max: 59, words: [] },
  { name: 'hour', min: 0, max: 23, words: [] },
  { name: 'day of the month', min: 1, max: 31, words: [] },
  {
    name: 'month',
    min: 1,
    max: 12,
    words: ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'],
  },
  { name: 'day of the week', min: 0, max: 7, words: ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] },
];
const SHORT_FORMS = ['@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually'];

/**
 * Says a schedule in words.
 *
 * @param {{every?: number|null, hours?: number[], cron?: string|null, 'time-zone'?: string|null}} schedule
 */
export function words(schedule) {
  if (schedule.cron) {
    const zone = schedule['time-zone'];
    return `${cronWords(schedule.cron)}${zone ? `, ${zone}` : ''}`;
  }
  const hours = schedule.hours ?? [];
  if (hours.length === 0) return 'only when it is started by hand';
  return `${everyWords(schedule.every ?? 1)} at ${hoursWords(hours)} UTC`;
}

/** Says a number of days between two runs. */
export function everyWords(every) {
  if (every === 1) return 'every day';
  return every === 7 ? 'every week' : `every ${every} days`;
}

function hoursWords(hours) {
  const clock = [...hours].sort((a, b) => a - b).map((hour) => `${String(hour).padStart(2, '0')}:00`);
  const last = clock.pop();
  return clock.length === 0 ? last : `${clock.join(', ')} and ${last}`;
}

/** Says the plainest cron expressions in words, and repeats all others. */
function cronWords(cron) {
  const plain = /^(\d{1,2}) (\d{1,2}) \* \* (\*|[a-z]{3}|\d)$/i.exec(cron.trim().replace(/\s+/g, ' '));
  if (!plain) return `cron ${cron}`;
  const [, minute, hour, day] = plain;
  const time = `${hour.padStart(2, '0')}:${minute.padStart(2, '0')}`;
  return day === '*' ? `every day at ${time}` : `every ${weekdayName(day)} at ${time}`;
}

function weekdayName(text) {
  const names = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
  const index = /^\d$/.test(text) ? Number(text) % 7 : CRON_FIELDS[4].words.indexOf(text.toLowerCase());
  return names[index] ?? text;
}

/** Gives the reason against days between two runs, or null. */
export function refuseEvery(text) {
  const every = Number(text);
  if (/^\d+$/.test(String(text).trim()) && every >= 1 && every <= DAYS_MAX) return null;
  return `Between two runs there are 1 to ${DAYS_MAX} days.`;
}

/** Gives the reason against a choice of hours, or null. */
export function refuseHours(hours) {
  return hours.length > 0 ? null : 'Choose at least one hour; without one this would never run.';
}

/** Gives the reason against a cron expression, or null; whether it can ever be is the server's to say. */
export function refuseCron(text) {
  const trimmed = text.trim();
  if (trimmed === '') return 'Write the five fields of cron, such as 30 2 * * * for half past two every night.';
  if (SHORT_FORMS.includes(trimmed)) return null;
  const fields = trimmed.split(/\s+/);
  if (fields.length !== CRON_FIELDS.length) {
    return `There are ${fields.length} fields in place of five: minute, hour, day of the month, month, day of the week.`;
  }
  for (const [index, field] of CRON_FIELDS.entries()) {
    const why = refuseField(field, fields[index]);
    if (why) return why;
  }
  return null;
}

function refuseField(field, text) {
  for (const part of text.split(',')) {
    const [range, step] = part.split('/', 2);
    if (part.includes('/') && !/^[1-9]\d*$/.test(step)) {
      return `The ${field.name} “${part}” has no whole number from 1 on as its step.`;
    }
    if (range === '*') continue;
    const ends = range.split('-');
    if (ends.length === 1 && part.includes('/')) {
      return `The ${field.name} “${part}” has a step and no range; write */${step} or ${range}-${field.max}/${step}.`;
    }
    const wrong = ends.length > 2 ? range : ends.find((end) => numberIn(field, end) === null);
    if (wrong !== undefined) return `“${wrong}” is no ${field.name}: it has to be ${allowed(field)}.`;
    const [from, to] = ends.map((end) => numberIn(field, end));
    if (to !== undefined && from > (field.max === 7 && to === 0 ? 7 : to)) {
      return `The ${field.name} “${range}” ends before it begins; write ${ends[0]}-${field.max},${field.min}-${ends[1]}.`;
    }
  }
  return null;
}

function numberIn(field, text) {
  const word = field.words.indexOf(text.toLowerCase());
  if (word >= 0) return field.min + word;
  const number = Number(text);
  return /^\d+$/.test(text) && number >= field.min && number <= field.max ? number : null;
}

function allowed({ min, max, words: names }) {
  return names.length === 0 ? `${min} to ${max}` : `${min} to ${max}, or ${names[0]} to ${names.at(-1)}`;
}

/** Gives what an hour in UTC is on the clock of a zone on the day of `now`, as 02:00. */
export function hourIn(hour, zone, now) {
  const date = new Date(now);
  date.setUTCHours(hour, 0, 0, 0);
  return new Intl.DateTimeFormat('en-GB', {
    timeZone: zone,
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  }).format(date);
}
