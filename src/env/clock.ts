/** Time and turns. The core takes both from here, so that the simulator can own them. */
export interface Clock {
  /** Milliseconds that only grow; the origin is of no meaning. */
  nowMs(): number;
  /** Milliseconds since 1970, for people's eyes only: nothing may depend on it. */
  wallMs(): number;
  /** Calls back once after the delay. A pending timer keeps no process alive by itself. */
  setTimer(delayMs: number, callback: () => void, options?: TimerOptions): Timer;
  /** Resolves after I/O and other work that waits has had its turn. */
  yield(): Promise<void>;
}

export interface TimerOptions {
  /** Somebody may be waiting for what comes of it. */
  readonly keepsAlive?: boolean;
}

export interface Timer {
  cancel(): void;
}
