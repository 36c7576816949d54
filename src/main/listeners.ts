/**
 * From settings to addresses: what systemd has bound, what is configured, or the default sockets.
 *
 * 1. Nothing is served beyond loopback without a token (API), or TLS or an explicit word (NBD).
 * 2. The folder of the default sockets belongs to the user of this process, and nobody else may
 *    write there.
 */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { StoreError } from '../base/store-error.js';
import { defaultApiSocket, defaultNbdSocket, runtimeFolder } from '../control/default-addresses.js';
import { isLoopback } from '../control/nbd-uri.js';
import { describeAddress, type ListenAddress } from '../env/listen.js';
import { checkTls, type NbdTls, parseKeyFile } from '../target/nbd/tls.js';
import { parseAddress } from './config.js';
import { randomToken } from './entropy.js';
import type { ApiListener } from './service.js';
import type { SettingKey, Settings } from './settings.js';
import type { ActivatedSocket } from './systemd.js';

export interface ListenerSources {
  readonly settings: Settings;
  readonly activated: readonly ActivatedSocket[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly userId: number;
}

/** @throws {StoreError} invalid: an address that is not served like that; device: a folder */
export function toListeners(sources: ListenerSources): {
  readonly api: ApiListener[];
  readonly nbd: ListenAddress[];
  readonly nbdTls: NbdTls | undefined;
} {
  const nbdTls = readTls(sources.settings);
  return { api: toApiListeners(sources), nbd: toNbdAddresses(sources), nbdTls };
}

const TLS_FILES = [
  'nbd.tls-certificate',
  'nbd.tls-key',
  'nbd.tls-client-authorities',
  'nbd.tls-psk-file',
] as const satisfies SettingKey[];

/** @throws {StoreError} invalid, device: a file that is not what it should be */
function readTls(settings: Settings): NbdTls | undefined {
  const mode = settings['nbd.tls'];
  if (mode === 'off') {
    const given = TLS_FILES.find((key) => settings[key] !== undefined);
    if (given === undefined) return undefined;
    throw new StoreError('invalid', `nbd.tls is off, but ${given} is given: allow or require TLS`);
  }
  const read = (key: (typeof TLS_FILES)[number]): string | undefined => {
    const path = settings[key];
    if (path === undefined) return undefined;
    try {
      return readFileSync(path, 'utf8');
    } catch (cause) {
      throw new StoreError('device', `${key}: ${String(cause)}`, { cause });
    }
  };
  const [chain, key] = [read('nbd.tls-certificate'), read('nbd.tls-key')];
  if ((chain === undefined) !== (key === undefined)) {
    throw new StoreError('invalid', 'nbd.tls-certificate and nbd.tls-key go together');
  }
  const keys = read('nbd.tls-psk-file');
  const tls: NbdTls = {
    mode,
    certificate: chain === undefined || key === undefined ? undefined : { chain, key },
    clientAuthorities: read('nbd.tls-client-authorities'),
    keys: keys === undefined ? undefined : parseKeyFile(keys, 'nbd.tls-psk-file'),
  };
  checkTls(tls);
  return tls;
}

function toApiListeners(sources: ListenerSources): ApiListener[] {
  const { settings, activated } = sources;
  const mode = settings['api.socket-mode'];
  const addresses = [
    ...activated.filter(({ use }) => use === 'api').map(toActivatedAddress),
    ...settings['api.listen'].map((text) => toAddress(text, mode)),
  ];
  if (addresses.length === 0) {
    addresses.push(toAddress(defaultApiSocket(ownFolder(sources)), mode));
  }
  return addresses.map((address) => ({
    address,
    token: needsToken(address) ? readToken(settings, address) : undefined,
  }));
}

function toNbdAddresses(sources: ListenerSources): ListenAddress[] {
  const { settings, activated } = sources;
  const mode = settings['nbd.socket-mode'];
  const addresses = [
    ...activated.filter(({ use }) => use === 'nbd').map(toActivatedAddress),
    ...settings['nbd.socket'].map((path) => toAddress(`unix:${path}`, mode)),
    ...settings['nbd.listen'].map((text) => toAddress(text, mode)),
  ];
  for (const address of addresses) {
    const isGuarded = settings['nbd.tls'] === 'require' || settings['nbd.allow-insecure'];
    if (isGuarded || isLocal(address)) continue;
    throw new StoreError(
      'invalid',
      `NBD on ${describeAddress(address)} would be open to everybody who reaches it: use ` +
        '127.0.0.1, --nbd-tls require, or --nbd-allow-insecure',
    );
  }
  if (addresses.length > 0) return addresses;
  return [toAddress(defaultNbdSocket(ownFolder(sources)), mode)];
}

function toAddress(text: string, mode: number): ListenAddress {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new StoreError('invalid', `"${text}" is no address`);
  if (parsed.kind === 'tcp') return parsed;
  // sun_path has 108 bytes, one of them a zero (unix(7)).
  if (Buffer.byteLength(parsed.path) > 107) {
    throw new StoreError('invalid', `${parsed.path} is longer than the 107 bytes of a socket`);
  }
  return { ...parsed, mode, replaceStale: true };
}

function toActivatedAddress({ descriptor, path }: ActivatedSocket): ListenAddress {
  return path === undefined
    ? { kind: 'descriptor', descriptor }
    : { kind: 'descriptor', descriptor, path };
}

function isLocal(address: ListenAddress): boolean {
  if (address.kind === 'tcp') return isLoopback(address.host);
  return address.kind === 'unix' || address.path !== undefined;
}

/** A descriptor with a path is a unix socket; one without may be reached from anywhere. */
function needsToken(address: ListenAddress): boolean {
  if (address.kind === 'unix') return false;
  return address.kind === 'tcp' || address.path === undefined;
}

function readToken(settings: Settings, address: ListenAddress): string {
  const path = settings['api.token-file'];
  if (path === undefined) {
    const where = address.kind === 'tcp' ? `${address.host}:${address.port}` : 'a port';
    throw new StoreError(
      'invalid',
      `the control API on ${where} needs a token: give --api-token-file FILE (made if it is not ` +
        'there), or use a unix socket',
    );
  }
  try {
    try {
      writeFileSync(path, `${randomToken()}\n`, { mode: 0o600, flag: 'wx' });
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    }
    if ((statSync(path).mode & 0o007) !== 0) {
      throw new StoreError('invalid', `${path}: everybody can read the token: chmod 600 it`);
    }
    const token = readFileSync(path, 'utf8').trim();
    if (/^[\x21-\x7e]{16,512}$/.test(token)) return token;
  } catch (cause) {
    if (cause instanceof StoreError) throw cause;
    throw new StoreError('device', `token file: ${String(cause)}`, { cause });
  }
  throw new StoreError('invalid', `${path} holds no token: 16 to 512 characters without spaces`);
}

/** The folder of the default sockets, made if it is not there. */
function ownFolder({ environment, userId }: ListenerSources): string {
  const folder = runtimeFolder(environment, userId);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const stat = statSync(folder);
    if (stat.uid === userId && (stat.mode & 0o022) === 0) return folder;
  } catch (cause) {
    throw new StoreError('device', `default sockets: ${String(cause)}`, {
      cause,
    });
  }
  throw new StoreError('invalid', `${folder} is writable by others: give --api and --nbd-socket`);
}
