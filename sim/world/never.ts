/**
 * The answer of a machine without power. A new promise each time: reactions to a shared one that
 * never settles would pile up.
 */
export function never(): Promise<never> {
  return new Promise<never>(() => undefined);
}
