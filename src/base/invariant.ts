/** A rule of the program does not hold: a bug. The process should end; opening recovers. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Crashes unless the rule holds. Kept on in production. */
export function invariant(condition: boolean, rule: string): asserts condition {
  if (!condition) throw new InvariantError(rule);
}
