// The switch between the system's colours, light and dark; the choice is remembered.

const THEMES = ["system", "light", "dark"];
const THEME_KEY = "rsearch.theme";

/** Applies the remembered theme; a button that is given switches to the next one. */
export function setUpTheme(button = null) {
  let theme = "system";
  try {
    theme = localStorage.getItem(THEME_KEY) ?? "system";
  } catch {
    // Storage may be switched off, or refused to a file.
  }
  applyTheme(theme, button);
  button?.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % THEMES.length];
    applyTheme(next, button);
    try {
      localStorage.setItem(THEME_KEY, next);
    } catch {
      // Then it lasts as long as the page.
    }
  });
}

function applyTheme(theme, button) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  const name = THEMES.includes(theme) ? theme : "system";
  if (button === null) return;
  button.textContent = { system: "◐ Auto", light: "○ Light", dark: "● Dark" }[name];
  button.setAttribute("aria-label", `Colours: ${name}; switch`);
  button.title = `Colours: ${name}`;
}
