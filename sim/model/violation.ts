/** The store did what it must never do. The message says what was seen and what was allowed. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** TEMPORARY: faults that are known and not mended yet. */
export function known(id: string): boolean {
  return (process.env.SIM_KNOWN ?? '').split(',').includes(id);
}
