/** Where the engine tells what happened. One event, one line; the fields carry the numbers. */
export interface LogEvent {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  /** Stable, kebab-case: what a program matches on. */
  readonly event: string;
  /** A sentence for a person. */
  readonly message: string;
  readonly fields?: Readonly<Record<string, string | number | boolean>>;
}

export type LogSink = (event: LogEvent) => void;

export const silentLog: LogSink = () => undefined;
