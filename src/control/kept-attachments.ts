/**
 * Attachments as they are kept over restarts: a list of vdisks and addresses, as a JSON text. Pure.
 */
import { Ajv } from 'ajv';
import { type Static, Type } from 'typebox';
import { StoreError } from '../base/store-error.js';
import { AnyName } from './name-schemas.js';
import { Attach } from './schemas.js';

const VERSION = 1;
const strict = { additionalProperties: false } as const;

const KeptAttachment = Type.Object({ vdisk: AnyName, where: Attach }, strict);
const KeptList = Type.Object(
  { version: Type.Literal(VERSION), attachments: Type.Array(KeptAttachment) },
  strict,
);
export type KeptAttachment = Static<typeof KeptAttachment>;

const isKeptList = new Ajv({ strict: true, strictTypes: false }).compile<Static<typeof KeptList>>(
  KeptList,
);

/** Where the list is kept. */
export interface AttachmentKeeper {
  /** For people. */
  readonly name: string;
  /** Undefined: nothing has been kept yet. @throws {StoreError} device */
  load(): Promise<string | undefined>;
  /** Durable, whole or not at all, when it resolves. @throws {StoreError} device */
  save(text: string): Promise<void>;
}

export function encodeKept(attachments: readonly KeptAttachment[]): string {
  return `${JSON.stringify({ version: VERSION, attachments }, undefined, 2)}\n`;
}

/** @throws {StoreError} invalid: names the place, and what to do */
export function decodeKept(text: string, name: string): readonly KeptAttachment[] {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    // Said below.
  }
  if (isKeptList(list)) return list.attachments;
  const message = `${name} holds no list of attachments of this version`;
  throw new StoreError('invalid', `${message}: mend it, or delete it and attach again`);
}
