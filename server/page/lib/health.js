/**
 * Whether all is well with a job, why not, and what to do. Pure.
 */

/** Exit codes of larder with what helps. */
const ADVICE_BY_CODE = {
  10: 'There is no repository at its destination. Open the destination: make the repository there, or correct the place.',
  11: 'It was being run already. If nothing is running, start it again.',
  12: 'The password that is kept for the destination does not open its repository. Open the destination and give the right one.',
  4: 'Damage that costs data was found. Run a check of the destination, then back up again: what the sources still have is put in anew.',
  5: 'Damage that costs no data was found. Run larder repair on the machine; the log has the details.',
  130: 'It was stopped. The next run goes on from its last checkpoint.',
};

/** Words in the engine's sentences with what helps. */
const ADVICE_BY_WORDS = [
  [/no space|full|quota|insufficient/i, 'Make room at the destination, or shorten the retention and prune.'],
  [/address is known|nothing listens|refused|timed out|unreachable|does not answer/i, 'Look whether the server is up, then validate the destination.'],
  [/certificate/i, 'Give the destination the certificate of the server’s authority.'],
  [/login|log in|password|credential|access key|denied|refuses/i, 'The destination refuses the log-in. Edit it, validate, and save.'],
  [/no such file|not there|does not exist|cannot be found/i, 'Something that the job names is not there any more. Edit what it backs up.'],
];

/**
 * Judges a job.
 *
 * @param {object} job an item of /health: with `state`, `why`, `last`, `last_success_age_seconds`
 * @returns {{tone: 'good'|'bad'|'warn'|'busy'|'plain', word: string, why: string|null, advice: string|null}}
 */
export function judge(job) {
  const last = job.last ?? null;
  const why = job.why ?? job.mistake ?? last?.error ?? null;
  switch (job.state) {
    case 'ok':
      return incomplete(last) ?? { tone: 'good', word: 'well', why: null, advice: null };
    case 'running':
      return { tone: 'busy', word: 'running', why: null, advice: null };
    case 'never':
      return { tone: 'plain', word: 'never run', why, advice: 'Run it once now, to see that it works.' };
    case 'mistake':
      return { tone: 'bad', word: 'mistake', why, advice: 'Edit the job and correct what is named.' };
    default:
      return { tone: 'bad', word: 'failing', why, advice: advise(last?.exit_code ?? null, why) };
  }
}

function incomplete(last) {
  if (last?.outcome !== 'incomplete') return null;
  return {
    tone: 'warn',
    word: 'incomplete',
    why: last.error ?? 'Some files could not be read in the last run.',
    advice: 'See in the run which these were; give Larder the right to read them, or exclude them.',
  };
}

/** Gives what to do about a failure: by its exit code, else by what is said of it. */
export function advise(code, why) {
  const known = ADVICE_BY_CODE[code];
  if (known) return known;
  const found = ADVICE_BY_WORDS.find(([pattern]) => pattern.test(why ?? ''));
  return found?.[1] ?? 'Read the log of its last run, then run it again.';
}

/**
 * Adds up what was stored, snapshot by snapshot, for the chart of growth.
 *
 * @param {{snapshots: Array<{time: string, added_stored_bytes: number}>}} history of `larder stats --history`
 */
export function growth(history) {
  let total = 0;
  return (history?.snapshots ?? []).map(({ time, added_stored_bytes: added }) => {
    total += added;
    return { time, value: total };
  });
}

/** Gives how many of the jobs are well, and how many are not, as one sentence. */
export function headline(jobs) {
  const judged = jobs.map((job) => judge(job).tone);
  const bad = judged.filter((tone) => tone === 'bad').length;
  if (judged.every((tone) => tone === 'plain')) return 'Nothing is backed up yet';
  if (bad === 0) return judged.includes('warn') ? 'All jobs run, some with gaps' : 'All is well';
  return bad === 1 ? 'One job needs you' : `${bad} jobs need you`;
}
