/** What a user can put right: shown as one sentence, exit code 2, no stack trace. */
export class InputError extends Error {
  /** The axis, option or field to blame, where there is one: a form shows the sentence there. */
  readonly subject: string | undefined;
  constructor(message: string, subject?: string) {
    super(message);
    this.subject = subject;
  }
}

/** The one sentence form for bad input. */
export const expected = (what: string, name: string, received: unknown): InputError =>
  new InputError(`expected ${what} for ${name} but received ${received === '' ? 'nothing' : String(received)}`, name);
