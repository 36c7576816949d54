/** What the schemas of the control API are put together from. */
import { type TSchema, Type } from 'typebox';

export const strict = { additionalProperties: false } as const;

export function nullable<S extends TSchema>(schema: S) {
  return Type.Union([schema, Type.Null()]);
}

export function oneOf<const T extends readonly string[]>(values: T, description: string) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: [...values], description });
}

export const bytes = (description: string) =>
  Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description });
export const count = (description: string) => bytes(description);
export const moment = (description: string) =>
  Type.String({ description, examples: ['2026-01-31T12:00:00.000Z'] });
