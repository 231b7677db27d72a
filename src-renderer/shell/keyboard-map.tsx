/** The `?` overlay: every key there is, and where it works. */
import { Kbd, Modal } from '@mantine/core';
import { useApp, useView } from '../panels/use-app.ts';
import { type Command, localKeys } from './commands.ts';
import { KeyCaps } from './key-caps.tsx';
import classes from './keyboard-map.module.css';

export function KeyboardMap({ commands }: { readonly commands: readonly Command[] }) {
  const { view } = useApp();
  const isOpen = useView(({ overlay }) => overlay === 'keys');
  const groups = [...new Set(commands.map(({ group }) => group))];
  return (
    <Modal
      opened={isOpen}
      onClose={() => view.setState({ overlay: undefined })}
      lockScroll={false}
      size={860}
      title="Keyboard map"
      transitionProps={{ duration: 0 }}
      closeButtonProps={{ 'aria-label': 'Close the keyboard map' }}
    >
      <div className={classes.map}>
        {groups.map((group) => (
          <section key={group} className={classes.group}>
            <h3>{group}</h3>
            <dl>
              {commands
                .filter((command) => command.group === group && command.keys)
                .map(({ id, title, keys }) => (
                  <div key={id}>
                    <dt>{title}</dt>
                    <dd>
                      <KeyCaps keys={keys?.[0] ?? ''} />
                    </dd>
                  </div>
                ))}
            </dl>
          </section>
        ))}
        {localKeys.map(({ where, keys }) => (
          <section key={where} className={classes.group}>
            <h3>{where}</h3>
            <dl>
              {keys.map(([names, does]) => (
                <div key={names}>
                  <dt>{does}</dt>
                  <dd>
                    <Kbd size="xs">{names}</Kbd>
                  </dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Modal>
  );
}
