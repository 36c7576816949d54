/**
 * Checks what a request brings against the schemas of its operation: path, query, body.
 *
 * 1. Nothing is repaired: no default is put in, no key dropped. Only numbers in a query, which is
 *    text, are read as numbers.
 * 2. Every key is one that the schema names, and no key of a query stands there twice.
 */
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import type { TSchema } from 'typebox';
import { OPERATIONS, type Operation, type OperationId } from './operations.js';
import { ApiError, type Fault } from './problem.js';

type PartName = 'path' | 'query' | 'body';
const FAULTS_MAX = 5;

interface Checks {
  readonly path: ValidateFunction | undefined;
  readonly query: ValidateFunction | undefined;
  readonly body: ValidateFunction | undefined;
  readonly numbersInQuery: ReadonlySet<string>;
}

export class Validation {
  readonly #checks = new Map<OperationId, Checks>();

  constructor() {
    const ajv = new Ajv({ strict: true, strictTypes: false, allErrors: false });
    const compile = (schema: TSchema | undefined) =>
      schema === undefined ? undefined : ajv.compile(schema);
    for (const [id, operation] of Object.entries<Operation>(OPERATIONS)) {
      this.#checks.set(id as OperationId, {
        path: compile(operation.params),
        query: compile(operation.query),
        body: compile(operation.body),
        numbersInQuery: numbersOf(operation.query),
      });
    }
  }

  path(id: OperationId, params: Readonly<Record<string, string>>): unknown {
    return check(this.#checks.get(id)?.path, 'path', params);
  }

  query(id: OperationId, text: string): unknown {
    const checks = this.#checks.get(id);
    const values: Record<string, string | number> = {};
    for (const [key, value] of new URLSearchParams(text)) {
      if (Object.hasOwn(values, key)) throw invalid([{ where: `query/${key}`, message: 'twice' }]);
      const isNumber = checks?.numbersInQuery.has(key) === true && /^[0-9]{1,16}$/.test(value);
      Object.defineProperty(values, key, {
        value: isNumber ? Number(value) : value,
        enumerable: true,
      });
    }
    if (checks?.query !== undefined) return check(checks.query, 'query', values);
    const [unknown] = Object.keys(values);
    if (unknown === undefined) return undefined;
    throw invalid([{ where: `query/${unknown}`, message: 'this operation takes no query' }]);
  }

  body(id: OperationId, value: unknown): unknown {
    return check(this.#checks.get(id)?.body, 'body', value);
  }
}

function numbersOf(schema: TSchema | undefined): Set<string> {
  const { properties = {} } = (schema ?? {}) as {
    properties?: Readonly<Record<string, { readonly type?: string }>>;
  };
  const names = Object.entries(properties).filter(([, { type }]) => type === 'integer');
  return new Set(names.map(([name]) => name));
}

function check(validate: ValidateFunction | undefined, part: PartName, value: unknown): unknown {
  if (validate === undefined) return undefined;
  if (validate(value)) return value;
  throw invalid((validate.errors ?? []).slice(0, FAULTS_MAX).map((error) => faultOf(part, error)));
}

function faultOf(part: PartName, error: ErrorObject): Fault {
  const where = `${part}${error.instancePath}`;
  const params = error.params as Readonly<Record<string, unknown>>;
  if (error.keyword === 'additionalProperties') {
    return { where, message: `unknown key ${JSON.stringify(params.additionalProperty)}` };
  }
  if (error.keyword === 'enum') {
    return { where, message: `must be one of ${JSON.stringify(params.allowedValues)}` };
  }
  return { where, message: error.message ?? error.keyword };
}

function invalid(faults: readonly Fault[]): ApiError {
  const text = faults.map(({ where, message }) => `${where}: ${message}`).join('; ');
  return new ApiError('invalid', text.slice(0, 1000), { faults });
}
