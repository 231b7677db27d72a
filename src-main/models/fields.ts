/** The fields of somebody else's config.json, each checked when it is asked for: what is wrong is said by its name. */
import { expected } from '../contract/input-error.ts';
import { type Json, OddNumber } from './strict-json.ts';

/** What no real model comes near: numbers of a configuration are bounded before they size anything. */
export const mostLayers = 1024;
export const dim = 2 ** 17;
export const positions = 2 ** 27;

/** Fields of one object of the configuration; `null` counts as absent. Later names are what older files call it. */
export class Fields {
  private readonly values: ReadonlyMap<string, Json>;
  readonly path: string;

  constructor(values: ReadonlyMap<string, Json>, path: string) {
    this.values = values;
    this.path = path;
  }

  private find(names: readonly string[]): readonly [string, Json | undefined] {
    const name = names.find((candidate) => this.has(candidate)) ?? (names[0] as string);
    return [name, this.values.get(name) ?? undefined];
  }

  has(name: string): boolean {
    const value = this.values.get(name);
    return value !== undefined && value !== null;
  }

  wrong(what: string, name: string): Error {
    return expected(what, `${name} in ${this.path}`, shown(this.values.get(name) ?? undefined));
  }

  count(names: readonly string[], most: number, otherwise?: number): number {
    const [name, value] = this.find(names);
    if (value === undefined && otherwise !== undefined) return otherwise;
    if (typeof value !== 'number' || value < 1 || value > most)
      throw this.wrong(`a whole number from 1 to ${most}`, name);
    return value;
  }

  optionalCount(name: string, most: number): number | undefined {
    return this.has(name) ? this.count([name], most) : undefined;
  }

  figure(names: readonly string[], otherwise?: number, least = 0): number {
    const [name, value] = this.find(names);
    if (value === undefined && otherwise !== undefined) return otherwise;
    const number = value instanceof OddNumber ? Number(value.text) : value;
    if (typeof number !== 'number' || !Number.isFinite(number) || number <= least || number > 1e12)
      throw this.wrong(`a number above ${least}`, name);
    return number;
  }

  optionalFigure(name: string): number | undefined {
    return this.has(name) ? this.figure([name]) : undefined;
  }

  flag(name: string, otherwise: boolean): boolean {
    if (!this.has(name)) return otherwise;
    const value = this.values.get(name);
    if (typeof value !== 'boolean') throw this.wrong('true or false', name);
    return value;
  }

  text(names: readonly string[]): string | undefined {
    const [name, value] = this.find(names);
    if (value === undefined) return undefined;
    if (typeof value !== 'string') throw this.wrong('a text', name);
    return value;
  }

  list(name: string): readonly Json[] | undefined {
    if (!this.has(name)) return undefined;
    const value = this.values.get(name);
    if (!Array.isArray(value)) throw this.wrong('a list', name);
    return value;
  }

  figures(name: string): readonly number[] {
    const items = (this.list(name) ?? []).map((item) => (item instanceof OddNumber ? Number(item.text) : item));
    if (items.length === 0 || !items.every((item) => typeof item === 'number' && Number.isFinite(item) && item > 0))
      throw this.wrong('a list of positive numbers', name);
    return items as number[];
  }

  object(name: string): Fields | undefined {
    if (!this.has(name)) return undefined;
    const value = this.values.get(name);
    if (!(value instanceof Map)) throw this.wrong('an object', name);
    return new Fields(value, `${name} of ${this.path}`);
  }
}

/** A value from the file, short enough to be shown. */
export function shown(value: Json | undefined): string {
  if (value === undefined) return 'nothing';
  if (value instanceof Map) return 'an object';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
