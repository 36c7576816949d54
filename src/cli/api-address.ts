/** Where the server's control API is, and the token that it may want. */
import { readFileSync } from 'node:fs';
import { defaultApiSocket, runtimeFolder } from '../control/default-addresses.js';
import { CommandError } from './failure.js';

export type ApiAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export interface AddressSources {
  /** What `--api` says. */
  readonly given: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly userId: number;
}

/** `--api` wins over KEIKI_API, that over the socket that a server takes by itself. */
export function findApiAddress({ given, environment, userId }: AddressSources): ApiAddress {
  // The variable is also the server's, which takes a list.
  const variable = environment.KEIKI_API?.split(',')[0]?.trim();
  const text = given ?? (variable === '' ? undefined : variable);
  if (text === undefined) {
    return { kind: 'unix', path: defaultApiSocket(runtimeFolder(environment, userId)) };
  }
  const address = parseApiAddress(text);
  if (address !== undefined) return address;
  const where = given === undefined ? 'KEIKI_API' : '--api';
  throw new CommandError(
    'usage',
    `${where}: "${text}" is no HOST:PORT, and no path: that has a slash, as ./x.sock`,
  );
}

/** A path (anything with a slash), HOST:PORT, [V6]:PORT or :PORT; undefined if it is neither. */
export function parseApiAddress(text: string): ApiAddress | undefined {
  const plain = text.replace(/^(unix:|tcp:|http:\/\/)/, '');
  const isUnix = text.startsWith('unix:') || (!text.startsWith('http:') && plain.includes('/'));
  if (isUnix) return plain === '' ? undefined : { kind: 'unix', path: plain };
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/]*)):([0-9]{1,5})\/?$/.exec(plain);
  const port = Number(match?.[3]);
  if (match === null || port === 0 || port > 65_535) return undefined;
  const host = match[1] ?? match[2] ?? '';
  return { kind: 'tcp', host: host === '' ? '127.0.0.1' : host, port };
}

export function describeApiAddress(address: ApiAddress): string {
  if (address.kind === 'unix') return address.path;
  const { host, port } = address;
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The token in the file, if one is named. */
export function readToken(path: string | undefined): string | undefined {
  if (path === undefined || path === '') return undefined;
  let token: string;
  try {
    token = readFileSync(path, 'utf8').trim();
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    throw new CommandError('usage', `the token file cannot be read: ${text}`, { cause });
  }
  // What a header can hold.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new CommandError('usage', `${path} holds no token: it has one word, in one line`);
}
