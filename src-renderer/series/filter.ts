/** The free filter: words and comparisons, all of which must hold. `four seqLen>=4096 relativeL2<0.01` */
import { metrics, type Point } from '../../src-main/contract/metrics.ts';
import { readField } from './fields.ts';

export interface Filter {
  readonly keeps: (point: Point) => boolean;
  /** What is wrong with the text, in words. */
  readonly problem: string | undefined;
}

type Test = (point: Point) => boolean;

const comparison = /^([a-zA-Z][\w]*)(<=|>=|!=|<|>|=)(.+)$/;
/** Short names as the table heads them. */
const aliases: Readonly<Record<string, string>> = { d: 'hiddenDim', tokens: 'seqLen' };
const byId = new Map(metrics.map((metric) => [metric.id, metric]));

export function parseFilter(text: string): Filter {
  const tests: Test[] = [];
  for (const term of text.split(/\s+/).filter(Boolean)) {
    const parts = comparison.exec(term);
    if (!parts) {
      tests.push(hasWord(term.toLowerCase()));
      continue;
    }
    const [, name, operator, value] = parts;
    const number = Number(value);
    if ((operator === '<' || operator === '>' || operator === '<=' || operator === '>=') && Number.isNaN(number))
      return { keeps: () => true, problem: `expected a number after ${name}${operator} but received ${value}` };
    tests.push(compares(aliases[name] ?? name, operator, value, number));
  }
  return { keeps: (point) => tests.every((test) => test(point)), problem: undefined };
}

const hasWord =
  (word: string): Test =>
  ({ config, outcome, error, reason, device }) =>
    `${config.level} ${config.phase} ${config.backend} ${device?.name ?? ''} ${device?.host ?? ''} ${outcome} ${error?.grade ?? ''} ${reason ?? ''}`
      .toLowerCase()
      .includes(word);

function compares(name: string, operator: string, value: string, number: number): Test {
  const read = (point: Point) =>
    byId.get(name)?.read(point) ??
    (name === 'grade' ? point.error?.grade : name === 'outcome' ? point.outcome : readField(point, name));
  return (point) => {
    const found = read(point);
    if (operator === '=') return String(found) === value || found === number;
    if (operator === '!=') return String(found) !== value && found !== number;
    if (typeof found !== 'number') return false;
    if (operator === '<') return found < number;
    if (operator === '>') return found > number;
    return operator === '<=' ? found <= number : found >= number;
  };
}
