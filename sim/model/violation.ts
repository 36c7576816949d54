/** The store did what it must never do. The message says what was seen and what was allowed. */
export class Violation extends Error {
  override readonly name = 'Violation';
}
