/**
 * Where a server listens: a unix socket, a TCP port, or a descriptor that somebody else has bound.
 *
 * 1. A unix socket is there with its mode from the first moment: nobody gets in before.
 * 2. A socket file that is left over is replaced only if nobody answers on it.
 */
import { unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { StoreError } from '../base/store-error.js';

export type ListenAddress =
  | {
      readonly kind: 'unix';
      readonly path: string;
      /** Permissions of the socket file; default what the process's umask leaves. */
      readonly mode?: number;
      /** Replace a file that a server which is gone has left. */
      readonly replaceStale?: boolean;
    }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | {
      readonly kind: 'descriptor';
      readonly descriptor: number;
      /** Where it is bound, if it is a unix socket. */
      readonly path?: string;
    };

/**
 * Resolves when the server listens.
 * @throws {StoreError} in-use: somebody listens there; device: the address cannot be used
 */
export async function listenAt(server: Server, address: ListenAddress): Promise<void> {
  try {
    await listenOnce(server, address);
  } catch (error) {
    if (address.kind !== 'unix' || !isSystemError(error, 'EADDRINUSE')) {
      throw listenError(address, error);
    }
    if (address.replaceStale !== true || (await isListening(address.path))) {
      const message = `socket ${address.path} is there already: another server's?`;
      throw new StoreError('in-use', message, { cause: error });
    }
    try {
      await unlink(address.path);
      await listenOnce(server, address);
    } catch (cause) {
      throw listenError(address, cause);
    }
  }
}

/** For people: the path, or host and port. */
export function describeAddress(address: ListenAddress): string {
  switch (address.kind) {
    case 'unix':
      return address.path;
    case 'tcp':
      return address.host.includes(':')
        ? `[${address.host}]:${address.port}`
        : `${address.host}:${address.port}`;
    case 'descriptor':
      return address.path ?? `descriptor ${address.descriptor}`;
  }
}

function listenOnce(server: Server, address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const onListening = (): void => {
      server.off('error', reject);
      resolve();
    };
    if (address.kind === 'tcp') {
      server.listen({ host: address.host, port: address.port }, onListening);
    } else if (address.kind === 'descriptor') {
      server.listen({ fd: address.descriptor }, onListening);
    } else {
      listenOnPath(server, address.path, address.mode, onListening);
    }
  });
}

/** The file is made within `listen`, so that nothing else runs under this umask. */
function listenOnPath(
  server: Server,
  path: string,
  mode: number | undefined,
  onListening: () => void,
): void {
  if (mode === undefined) {
    server.listen({ path }, onListening);
    return;
  }
  const before = process.umask(0o777 & ~mode);
  try {
    server.listen({ path }, onListening);
  } finally {
    process.umask(before);
  }
}

/** True if somebody answers on the socket. */
function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    // Refused: the file is there, nobody is behind it. Anything else: leave it alone.
    probe.once('error', (error) => resolve(!isSystemError(error, 'ECONNREFUSED')));
  });
}

function isSystemError(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function listenError(address: ListenAddress, error: unknown): StoreError {
  const message = error instanceof Error ? error.message : String(error);
  const kind = isSystemError(error, 'EADDRINUSE') ? 'in-use' : 'device';
  const where = describeAddress(address);
  return new StoreError(kind, `cannot listen on ${where}: ${message}`, { cause: error });
}
