/**
 * What systemd and a service tell one another: sockets that it has bound (sd_listen_fds(3)), and
 * that the service is ready (sd_notify(3)). Without systemd nothing of this does anything.
 */
import { spawn } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { StoreError } from '../base/store-error.js';
import type { LogSink } from '../env/log-sink.js';

/** SD_LISTEN_FDS_START */
const FIRST_DESCRIPTOR = 3;

export interface ActivatedSocket {
  /** FileDescriptorName= of its unit. */
  readonly use: 'api' | 'nbd';
  readonly descriptor: number;
  /** Undefined for a TCP port. */
  readonly path: string | undefined;
}

/** @throws {StoreError} invalid: a socket with another name */
export function activatedSockets(
  environment: Readonly<Record<string, string | undefined>>,
  pid: number,
): ActivatedSocket[] {
  const count = Number(environment.LISTEN_FDS ?? 0);
  if (environment.LISTEN_PID !== String(pid) || !(count > 0)) return [];
  const names = (environment.LISTEN_FDNAMES ?? '').split(':');
  return Array.from({ length: count }, (_, index) => {
    const use = names[index];
    const descriptor = FIRST_DESCRIPTOR + index;
    if (use === 'api' || use === 'nbd') return { use, descriptor, path: pathOf(descriptor) };
    const message = `systemd passes a socket named "${use}": FileDescriptorName must be api or nbd`;
    throw new StoreError('invalid', message);
  });
}

/** The path that a unix socket is bound to. Source: proc(5), /proc/net/unix. */
function pathOf(descriptor: number): string | undefined {
  const inode = /^socket:\[([0-9]+)\]$/.exec(readlinkSync(`/proc/self/fd/${descriptor}`))?.[1];
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (inode !== undefined && fields[6] === inode) return fields[7];
  }
  return undefined;
}

/**
 * Tells systemd a state, as READY=1 or STOPPING=1. Node cannot send datagrams to a unix socket, so
 * the command systemd-notify does it: the unit needs NotifyAccess=all.
 */
export function notifySystemd(
  state: string,
  environment: Readonly<Record<string, string | undefined>>,
  log: LogSink,
): Promise<void> {
  if (environment.NOTIFY_SOCKET === undefined) return Promise.resolve();
  return new Promise((resolve) => {
    const env = { ...environment };
    const notifier = spawn('systemd-notify', [state], { stdio: 'ignore', env });
    const end = (reason: string | undefined): void => {
      if (reason !== undefined) {
        const message = `systemd was not told ${state}: systemd-notify: ${reason}`;
        log({ level: 'warn', event: 'systemd-notify-failed', message });
      }
      resolve();
    };
    notifier.on('error', (error) => end(error.message));
    notifier.on('close', (code) => end(code === 0 ? undefined : `exit code ${code}`));
  });
}
