/**
 * Reads the settings: flags win over the environment, that over the config file, that over the
 * defaults. Every value is checked, wherever it comes from, and told by its name there.
 */
import { parse, TomlError } from 'smol-toml';
import { parseSize } from '../base/size-text.js';
import { StoreError } from '../base/store-error.js';
import {
  describeKind,
  flagOf,
  SETTING_KEYS,
  SETTINGS,
  type Setting,
  type SettingKey,
  type Settings,
  variableOf,
} from './settings.js';

/** A value and what it is called where it stands. */
interface Given {
  readonly value: unknown;
  readonly where: string;
}

export interface ConfigSources {
  /** By setting; a flag that was given more than once is a list. */
  readonly flags: Readonly<Partial<Record<SettingKey, string | boolean | readonly string[]>>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Text of the config file, and its path for messages. */
  readonly file: { readonly path: string; readonly text: string } | undefined;
}

/** @throws {StoreError} invalid: names the setting, where it stands, and what it takes */
export function readSettings({ flags, environment, file }: ConfigSources): Settings {
  const fromFile = file === undefined ? new Map<string, Given>() : readFile(file);
  const settings: Record<string, unknown> = {};
  for (const key of SETTING_KEYS) {
    const flag = flags[key];
    const variable = environment[variableOf(key)];
    const setting: Setting = SETTINGS[key];
    const given: Given | undefined =
      flag !== undefined
        ? { value: flag, where: `--${flagOf(key)}` }
        : variable !== undefined && variable !== ''
          ? { value: fromText(setting, variable), where: variableOf(key) }
          : fromFile.get(key);
    settings[key] = given === undefined ? setting.fallback : toValue(setting, given);
  }
  return settings as unknown as Settings;
}

/** A list in one variable: parts between commas. */
function fromText(setting: Setting, text: string): unknown {
  const isList = ['paths', 'addresses', 'urls'].includes(setting.kind);
  return isList ? text.split(',').map((part) => part.trim()) : text;
}

function readFile({ path, text }: { path: string; text: string }): Map<string, Given> {
  let document: Record<string, unknown>;
  try {
    document = parse(text);
  } catch (error) {
    const isSyntax = error instanceof TomlError;
    const place = isSyntax ? `line ${error.line}, column ${error.column}: ` : '';
    const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw invalid(`${path}: ${place}${message}`, error);
  }
  const given = new Map<string, Given>();
  for (const [section, content] of Object.entries(document)) {
    if (typeof content !== 'object' || content === null || Array.isArray(content)) {
      throw invalid(`${path}: "${section}" stands outside of any [section]`);
    }
    for (const [name, value] of Object.entries(content)) {
      const key = `${section}.${name}`;
      if (!Object.hasOwn(SETTINGS, key)) throw invalid(unknownKey(path, key));
      given.set(key, { value, where: `${path}: ${key}` });
    }
  }
  return given;
}

function unknownKey(path: string, key: string): string {
  const alike = SETTING_KEYS.filter((each) => each.split('.')[1] === key.split('.')[1]);
  const section = SETTING_KEYS.filter((each) => each.startsWith(`${key.split('.')[0]}.`));
  const known = alike.length > 0 ? alike : section.length > 0 ? section : SETTING_KEYS;
  return `${path}: there is no setting ${key}; there is ${known.join(', ')}`;
}

function toValue(setting: Setting, { value, where }: Given): unknown {
  const converted = convert(setting, value);
  if (converted !== undefined) return converted;
  const shown = JSON.stringify(value)?.slice(0, 80) ?? String(value);
  // What people write first is the bare name of a socket.
  const hint = setting.kind === 'addresses' ? ' (HOST:PORT, or a path with a slash: ./x.sock)' : '';
  throw invalid(`${where} cannot be ${shown}: it takes ${describeKind(setting)}${hint}`);
}

/** Undefined if the value is none for this setting. */
function convert(setting: Setting, value: unknown): unknown {
  switch (setting.kind) {
    case 'text':
    case 'path':
      return typeof value === 'string' && value !== '' ? value : undefined;
    case 'paths':
    case 'urls':
    case 'addresses': {
      const given: unknown[] = Array.isArray(value) ? value : [value];
      // No URL of an endpoint has a comma; people write several in one.
      const isSplit = setting.kind === 'urls' && given.every((each) => typeof each === 'string');
      const list = isSplit ? given.flatMap((each) => String(each).split(',')) : given;
      const isSound = list.every((each) => typeof each === 'string' && each !== '');
      if (!isSound) return undefined;
      const isAddresses = setting.kind === 'addresses';
      return list.every((each) => !isAddresses || parseAddress(String(each)) !== undefined)
        ? list
        : undefined;
    }
    case 'flag':
      if (typeof value === 'boolean') return value;
      return value === 'true' ? true : value === 'false' ? false : undefined;
    case 'choice':
      return setting.choices.find((choice) => choice === value);
    case 'mode':
      return typeof value === 'string' && /^0?[0-7]{3}$/.test(value)
        ? Number.parseInt(value, 8)
        : undefined;
    case 'bytes':
      return within(setting, typeof value === 'string' ? parseSize(value) : value);
    case 'count':
    case 'milliseconds':
      return within(setting, typeof value === 'string' ? toInteger(value) : value);
    case 'price':
      return toPrice(typeof value === 'string' ? value : String(value));
  }
}

function toInteger(text: string): number | undefined {
  return /^[0-9]{1,15}$/.test(text) ? Number(text) : undefined;
}

function toPrice(text: string): number | undefined {
  return /^[0-9]{1,9}(\.[0-9]{1,12})?$/.test(text) ? Number(text) : undefined;
}

function within(
  { minimum, maximum }: { readonly minimum: number; readonly maximum: number },
  value: unknown,
): number | undefined {
  const isInteger = typeof value === 'number' && Number.isSafeInteger(value);
  return isInteger && value >= minimum && value <= maximum ? value : undefined;
}

export type ParsedAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** A path (anything with a slash), HOST:PORT, [V6]:PORT or :PORT; undefined if it is neither. */
export function parseAddress(text: string): ParsedAddress | undefined {
  const plain = text.replace(/^(unix:|tcp:)/, '');
  if (text.startsWith('unix:') || plain.includes('/')) return { kind: 'unix', path: plain };
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]*)):([0-9]{1,5})$/.exec(plain);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) return undefined;
  const host = match[1] ?? match[2];
  return { kind: 'tcp', host: host === undefined || host === '' ? '127.0.0.1' : host, port };
}

function invalid(message: string, cause?: unknown): StoreError {
  return new StoreError('invalid', message, { cause });
}
