/**
 * For how long snapshots stay: in words, and what can be said against it. Pure.
 */

const DAYS_MAX = 36_500;

/** The rules that keep the newest of each hour, day and so on, in the order in which a form has them. */
export const RULES = [
  { key: 'keep-last', label: 'newest', unit: ['newest snapshot', 'newest snapshots'] },
  { key: 'keep-hourly', label: 'hourly', unit: ['hourly', 'hourly'] },
  { key: 'keep-daily', label: 'daily', unit: ['daily', 'daily'] },
  { key: 'keep-weekly', label: 'weekly', unit: ['weekly', 'weekly'] },
  { key: 'keep-monthly', label: 'monthly', unit: ['monthly', 'monthly'] },
  { key: 'keep-yearly', label: 'yearly', unit: ['yearly', 'yearly'] },
];

/**
 * Says for how long the snapshots of a job stay.
 *
 * @param {{'keep-days'?: number|null, forget?: object|null}} job
 */
export function words(job) {
  if (job['keep-days']) return `for ${job['keep-days']} days`;
  const forget = job.forget ?? {};
  const said = RULES.filter(({ key }) => forget[key]).map(({ key, unit }) => {
    const number = forget[key];
    return number === -1 ? `all ${unit[1]}` : `${number} ${unit[number === 1 ? 0 : 1]}`;
  });
  if (forget['keep-within']) said.push(`all within ${forget['keep-within']}`);
  return said.length === 0 ? 'for ever' : said.join(', ');
}

/** Gives the reason against a number of days, or null. */
export function refuseDays(text) {
  const days = Number(text);
  if (/^\d+$/.test(String(text).trim()) && days >= 1 && days <= DAYS_MAX) return null;
  return days === 0 ? 'For 0 days no snapshot would be kept.' : `Write a whole number of days, 1 to ${DAYS_MAX}.`;
}

/** Gives the reason against the count of one rule, or null; empty leaves the rule out, -1 keeps all. */
export function refuseCount(text) {
  const trimmed = String(text).trim();
  if (trimmed === '' || trimmed === '-1' || /^\d{1,6}$/.test(trimmed)) return null;
  return 'Write a whole number, or leave it empty; -1 keeps all of them.';
}

/** Gives the reason against the rules as a whole, or null. */
export function refuseRules(counts) {
  const keeps = Object.values(counts).some((text) => /^(-1|0*[1-9]\d*)$/.test(String(text).trim()));
  return keeps ? null : 'No rule keeps a snapshot, so every one would be forgotten. Fill in at least one.';
}
