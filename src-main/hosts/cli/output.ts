/** Where words go: results to stdout and nothing else; everything about them to stderr. */
import { expected, InputError } from '../../contract/input-error.ts';

export const say = (line: string): void => void process.stderr.write(`${line}\n`);

const causes: Readonly<Record<string, string>> = { ENOSPC: 'the disk is full', EDQUOT: 'the quota is used up' };

/** Resolves when all is written; text ends its last line. A reader that has seen enough (`| head`) is no error. */
export function print(content: string | Uint8Array): Promise<void> {
  const whole = typeof content !== 'string' || content.endsWith('\n') ? content : `${content}\n`;
  return new Promise((resolve, reject) => {
    process.stdout.write(whole, (error) => {
      const code = (error as NodeJS.ErrnoException | null | undefined)?.code;
      if (!error || code === 'EPIPE') resolve();
      else reject(new InputError(`cannot write the result: ${causes[code ?? ''] ?? error.message}`));
    });
  });
}

export const json = (value: unknown): string => JSON.stringify(value, null, 2);

/** For commander: a reader of an option's number. */
export const numberOption =
  (name: string, what: string, accepts: (value: number) => boolean) =>
  (text: string): number => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isFinite(value) || !accepts(value)) throw expected(what, name, text);
    return value;
  };

export function backendOption(text: string): string {
  if (!/^(cpu|cuda:\d+)$/.test(text)) throw expected('cpu or cuda:N', '--backend', text);
  return text;
}

export const choiceOption =
  <Choice extends string>(name: string, choices: readonly Choice[]) =>
  (text: string): Choice => {
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) throw expected(`one of ${choices.join(', ')}`, name, text);
    return choice;
  };
