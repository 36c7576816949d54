/** A moment as documents and logs write it. */

/** ISO 8601 in UTC, to the millisecond. @param wallMs  what Clock.wallMs gives */
export function toIsoTime(wallMs: number): string {
  return new Date(wallMs).toISOString();
}
