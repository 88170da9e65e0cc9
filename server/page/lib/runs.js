/**
 * Runs, their steps and their lines in words. Pure.
 */

import { bytes, count, duration, rate, things } from './format.js';

const KINDS = {
  job: 'Backup job',
  backup: 'Backup',
  restore: 'Restore',
  check: 'Check',
  prune: 'Prune',
  forget: 'Forget',
  validate: 'Validation',
  export: 'Export',
  import: 'Import',
};

/** Gives the name of a kind of run. */
export function kindWords(kind) {
  return KINDS[kind] ?? kind;
}

/**
 * Gives how a run came out: in a word, and how good that is.
 *
 * @returns {{word: string, tone: 'good'|'bad'|'warn'|'busy'|'plain'}}
 */
export function outcomeWords(outcome) {
  switch (outcome) {
    case null:
    case undefined:
      return { word: 'running', tone: 'busy' };
    case 'success':
      return { word: 'success', tone: 'good' };
    case 'incomplete':
      return { word: 'incomplete', tone: 'warn' };
    case 'time-limit':
      return { word: 'stopped at its time limit', tone: 'warn' };
    case 'interrupted':
      return { word: 'cancelled', tone: 'plain' };
    case 'missed':
      return { word: 'missed', tone: 'warn' };
    case 'died':
      return { word: 'died', tone: 'bad' };
    default:
      return { word: 'failed', tone: 'bad' };
  }
}

const STEPS = {
  resolve: 'Find the server’s address',
  connect: 'Connect',
  tls: 'Agree on encryption (TLS)',
  'host-key': 'Recognise the server by its key',
  authenticate: 'Log in',
  find: 'Find the folder or bucket',
  write: 'Write an object',
  'read-back': 'Read it back',
  'range-read': 'Read a part of it',
  list: 'List what is there',
  'create-if-absent': 'Let one of two writers win',
  delete: 'Delete what was written',
  latency: 'Time a small request',
  upload: 'Measure the upload',
  download: 'Measure the download',
};

/** Gives what a step of a validation does. */
export function stepWords(step) {
  return STEPS[step] ?? step;
}

/** Gives what a step of a validation found, in a few words. */
export function stepFound(step) {
  if (step.outcome === 'failed') return step.cause ?? 'failed';
  if (step.outcome === 'skipped') return step.cause ?? 'left out';
  if (step.latency_seconds !== undefined) return `${Math.max(1, Math.round(step.latency_seconds * 1000))} ms`;
  if (step.bytes_per_second !== undefined) return rate(step.bytes_per_second);
  return step.detail ?? 'works';
}

/**
 * Gives a line of a run's log as text, and how grave it is; null for what is shown elsewhere.
 *
 * @returns {{text: string, tone: 'plain'|'warn'|'bad'|'good'}|null}
 */
export function lineWords(line) {
  switch (line.message_type) {
    case 'status':
      return null;
    case 'stderr':
      return plainText(line.text);
    case 'warning':
      return { text: line.message, tone: 'warn' };
    case 'step':
      return { text: `${stepWords(line.step)}: ${stepFound(line)}`, tone: line.outcome === 'failed' ? 'bad' : 'plain' };
    case 'finding':
      return { text: `${line.object}: ${line.problem}`, tone: line.severity === 'loss' ? 'bad' : 'warn' };
    case 'group':
      return { text: `${things(line.snapshots?.length, 'snapshot')} of ${(line.paths ?? ['all paths']).join(', ')}`, tone: 'plain' };
    case 'summary':
      return { text: summaryWords(line), tone: 'good' };
    default:
      return { text: `${line.message_type} ${line.path ?? line.from ?? line.snapshot ?? ''}`.trim(), tone: 'plain' };
  }
}

/** What is JSON among what was written for people is for programs, and was told already. */
function plainText(text) {
  return !text || text.startsWith('{"message_type"') ? null : { text, tone: /warning|error/i.test(text) ? 'warn' : 'plain' };
}

function summaryWords(summary) {
  if (summary.runs) return things(summary.runs.length, 'step of the job has', 'steps of the job have') + ' ended';
  if (summary.statistics) return backupWords(summary);
  if (summary.works !== undefined) return summary.works ? 'a repository would work there' : 'no repository would work there';
  if (summary.kept !== undefined) return `${things(summary.kept, 'snapshot stays', 'snapshots stay')}, ${count(summary.forgotten?.length)} forgotten`;
  if (summary.packs_deleted !== undefined) return `${things(summary.packs_deleted, 'pack')} deleted, ${bytes(summary.bytes_deleted)}`;
  if (summary.packs_read !== undefined) return checkWords(summary);
  if (summary.bytes_fetched !== undefined) return restoreWords(summary);
  return 'done';
}

function backupWords({ snapshot, statistics, issue_count: issues, seconds }) {
  const { new: fresh, changed, unchanged } = statistics;
  const saved = snapshot ? `snapshot ${snapshot.slice(0, 8)}` : 'no snapshot, as nothing changed';
  const unread = issues > 0 ? `, ${count(issues)} could not be read` : '';
  return `${saved}: ${count(fresh)} new, ${count(changed)} changed, ${count(unchanged)} unchanged${unread}, in ${duration(seconds)}`;
}

function checkWords({ snapshots, packs, loss, harmless }) {
  const damage = loss + harmless > 0 ? `${count(loss)} findings cost data, ${count(harmless)} do not` : 'no damage was found';
  return `checked ${things(snapshots, 'snapshot')} and ${things(packs, 'pack')}: ${damage}`;
}

function restoreWords({ files, unchanged, bytes: written, failed }) {
  const bad = failed > 0 ? `, ${count(failed)} failed` : '';
  return `${things(files, 'file')} written, ${count(unchanged)} right already, ${bytes(written)}${bad}`;
}

/** Finds the summary of the backup among the lines of a job's run: the last one with statistics. */
export function backupSummary(lines) {
  return lines.findLast((line) => line.message_type === 'summary' && line.statistics) ?? null;
}

/** Counts how the runs of a strip came out, in words for those who do not see it. */
export function stripWords(runs) {
  if (runs.length === 0) return 'No runs yet';
  const good = runs.filter(({ outcome }) => outcome === 'success').length;
  const bad = runs.filter(({ outcome }) => outcomeWords(outcome).tone === 'bad').length;
  return `The last ${things(runs.length, 'run')}: ${good} succeeded, ${bad} failed`;
}
