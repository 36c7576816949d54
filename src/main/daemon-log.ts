/** Events of the log as lines: for people, or for programs. */
import type { LogEvent, LogSink } from '../env/log-sink.js';
import { toIsoTime } from '../env/wall-time.js';

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;

export interface DaemonLogOptions {
  readonly level: LogEvent['level'];
  readonly format: 'text' | 'json';
  readonly wallMs: () => number;
  readonly write: (line: string) => void;
}

export function daemonLog({ level, format, wallMs, write }: DaemonLogOptions): LogSink {
  const least = LEVELS.indexOf(level);
  return (event) => {
    if (LEVELS.indexOf(event.level) < least) return;
    const time = toIsoTime(wallMs());
    write(format === 'json' ? toJsonLine(time, event) : toTextLine(time, event));
  };
}

function toJsonLine(time: string, { level, event, message, fields }: LogEvent): string {
  return `${JSON.stringify({ time, level, event, message, ...fields })}\n`;
}

function toTextLine(time: string, { level, event, message }: LogEvent): string {
  // One event is one line, whatever its text.
  return `${time} ${level.padEnd(5)} ${event}: ${message.replaceAll(/\s*\n\s*/g, ' | ')}\n`;
}
