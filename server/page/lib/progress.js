/**
 * How a run gets on. Pure.
 */

/** Seconds over which a rate is taken. */
const WINDOW_SECONDS = 10;

/**
 * Adds a status to those from which the rate is taken, and gives those that still count.
 *
 * @param {Array<{phase: string, at: number, bytes: number}>} samples
 * @param {{phase: string, seconds_elapsed: number, bytes_done: number}} status
 */
export function sampled(samples, status) {
  const sample = { phase: status.phase, at: status.seconds_elapsed, bytes: status.bytes_done };
  // Another phase counts other bytes.
  const recent = samples.filter(({ phase, at }) => phase === sample.phase && sample.at - at <= WINDOW_SECONDS);
  return [...recent, sample];
}

/** Gives the bytes a second of late, or null while it cannot be told. */
export function rateOf(samples) {
  const first = samples[0];
  const last = samples.at(-1);
  if (!first || last.at - first.at < 1) return null;
  return Math.max(0, (last.bytes - first.bytes) / (last.at - first.at));
}

/** Gives what share of its phase a status has done, from 0 to 1, or null while it cannot be told. */
export function shareDone(status) {
  const { bytes_done: bytes, bytes_total: ofBytes, items_done: items, items_total: ofItems } = status;
  if (ofBytes > 0) return Math.min(1, bytes / ofBytes);
  return ofItems > 0 ? Math.min(1, items / ofItems) : null;
}
