/** The flags of `keiki serve`, from the table of settings. */
import { parseArgs } from 'node:util';
import { StoreError } from '../base/store-error.js';
import type { ServeOptions } from './serve.js';
import { flagOf, SETTING_KEYS, SETTINGS, type Setting, type SettingKey } from './settings.js';

export interface ServeFlag {
  /** Without the dashes. */
  readonly name: string;
  readonly key: SettingKey | 'config';
  /** What stands behind it in a help text; undefined for a flag without a value. */
  readonly takes: string | undefined;
  readonly summary: string;
}

const PLACEHOLDERS: Readonly<Record<Setting['kind'], string | undefined>> = {
  text: 'TEXT',
  path: 'PATH',
  paths: 'PATH',
  addresses: 'PATH|HOST:PORT',
  urls: 'URL',
  flag: undefined,
  choice: 'WORD',
  mode: 'MODE',
  bytes: 'SIZE',
  count: 'NUMBER',
  milliseconds: 'MS',
  price: 'PRICE',
};

/** All flags, for help texts and completions. */
export const SERVE_FLAGS: readonly ServeFlag[] = [
  { name: 'config', key: 'config', takes: 'FILE', summary: 'The config file (or KEIKI_CONFIG)' },
  ...SETTING_KEYS.map((key): ServeFlag => {
    const { kind, summary }: Setting = SETTINGS[key];
    return { name: flagOf(key), key, takes: PLACEHOLDERS[kind], summary };
  }),
];

/**
 * @param args  what stands behind `keiki serve`
 * @throws {StoreError} invalid
 */
export function parseServeArguments(
  args: readonly string[],
): Pick<ServeOptions, 'configPath' | 'flags'> {
  const options = SERVE_FLAGS.map(({ name, takes }) => {
    const type = takes === undefined ? 'boolean' : 'string';
    return [name, { type, multiple: takes !== undefined }] as const;
  });
  let values: Readonly<Record<string, unknown>>;
  try {
    ({ values } = parseArgs({ args: [...args], options: Object.fromEntries(options) }));
  } catch (cause) {
    throw new StoreError('invalid', cause instanceof Error ? cause.message : String(cause));
  }
  const flags: Partial<Record<SettingKey, string | boolean | readonly string[]>> = {};
  let configPath: string | undefined;
  for (const { name, key } of SERVE_FLAGS) {
    const value = values[name];
    if (value === undefined) continue;
    if (key === 'config') configPath = lastOf(value);
    else flags[key] = isList(key) ? (value as string[]) : lastOf(value);
  }
  return { configPath, flags };
}

function isList(key: SettingKey): boolean {
  const { kind }: Setting = SETTINGS[key];
  return kind === 'paths' || kind === 'addresses' || kind === 'urls';
}

function lastOf<T>(value: unknown): T {
  return (Array.isArray(value) ? value.at(-1) : value) as T;
}
