/** What a parser of a connection's bytes says after each item. */
export type Step =
  /** The item is dealt with: go on. */
  | 'next'
  /** Bytes are missing. */
  | 'wait'
  /** The next request must wait for memory, or for others to be answered. */
  | 'stalled'
  /** The client wants to go: answer what was begun, then close. */
  | 'disconnect'
  /** The reply that agrees to TLS is made: whatever follows is encrypted. */
  | 'starttls'
  | Violation;

/** The client broke a rule so that the stream means nothing, or asked for what has no reply. */
export interface Violation {
  readonly kind: 'violation';
  readonly reason: string;
}

export function violation(reason: string): Violation {
  return { kind: 'violation', reason };
}
